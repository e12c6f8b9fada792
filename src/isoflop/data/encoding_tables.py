"""How common characters are in the scripts that older encodings served; not for other scripts.

Characters stand in order of frequency, and the probability falls with the rank. That is coarse,
and enough to tell a right reading from a wrong one, which gives characters of all ranks alike.
"""

from __future__ import annotations

import math
import re
from functools import cache

# The bits of what no author writes: control characters, private use, unassigned.
_DAMAGE_BITS = 30.0
_RARE_BITS = 20.0
_CONTEXT_BITS = 8.0
_CAPITAL_BITS = 0.3
_WORD_BITS = 2.0
_MAX_WORDS_BITS = 40.0

_HANS = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
    "过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间"
    "由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给"
    "世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变"
    "四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社"
    "便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北"
)
_HANT = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年"
    "過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心"
    "她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間"
    "由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給"
    "世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更別打女變"
    "四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社"
    "便空決治展馬科司五基眼書非則聽白卻界達光放強即像難且權思王象完設式色路記南品住告類求據程北"
)
_KANA = (
    "のいるにたしをはがでとてなかれらもさこすっくあまりけどきえよみつだおうやせそめじわちねばげご"
    "ンースルトリアイラクドジレロシタフテムカコサプマニメキほふゆひむろんべぶずびざぐぎへぬぱチウ"
    "日一人年大本中国会事者出上分生自行社時合地業方学部見月内長定手前後間市"
)
_HANGUL = (
    "이다의는에을하고가를한은로지도사기서리어자인대시정나라있과수해것그들아부만일게으스보적제주상여"
    "전면장원구관공성회조신동유경모안개무국비연소치계세거위용음등우문니었와오년재던며없러선내분두"
)
_CHINESE_MARKS = "，。、：；“”？！（）《》「」『』…—·・．‘’　"
_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъёіїєґўј"
_GREEK = "αοιετσνηυρπκμλωςίόγάδθέήφύχώβξζψϊϋΐΰ"
_WESTERN = "éèàêçäöüáíóãñôâîßåøúõûùëïæìòœÿ"
_CENTRAL = "áíéěřžýčšůúółęążśćńźťďňőűöüäăâîşţđľĺŕôëçß"
_TURKISH = "ıüşğöçİâîûéŞÇÖÜĞ"
_MARKS = "’“”–—…«»·‘°\u00a0„©®€£§№•×±²½¡¿‚†‹›™"

# The commonest words that one group of languages has and the others lack.
_WESTERN_WORDS = (
    "the of and in is that it was for with you he his as le la les des du et un une que qui dans "
    "pour est pas der die und das den von mit dem ist nicht el los las en y por con del os um em "
    "il di che per non och att det som en av og til hij het een van"
)
_CENTRAL_WORDS = (
    "nie w z jest na do co jak ale po od za przez ze ve je se si bylo jako by az hogy egy nem ez "
    "meg csak cu mai din pe care sau sa su iz koji bio ako te li tak jen"
)
_TURKISH_WORDS = "ve bir bu da ne ile mi her ama ben daha kadar en var olan"


class Script:
    """The characters of a way of writing, with their bits.

    Args:
        ranked: Strings of characters from common to rare, each with its share of a text's
            characters beyond ASCII.
        others: Sets of characters that are about equally common, with their share.
        lonely: Whether such letters stand between ASCII letters (Latin) or among themselves; None
            where letters have no case and no neighbours to go by.
        words: Short words of its languages that are written in ASCII.
    """

    def __init__(
        self,
        ranked: tuple[tuple[str, float], ...],
        others: tuple[tuple[frozenset[str], float], ...] = (),
        lonely: bool | None = None,
        words: str = "",
    ) -> None:
        self._bits: dict[str, float] = {}
        for characters, share in others:
            bits = -math.log2(share / len(characters))
            self._bits |= dict.fromkeys(characters, bits)
        for text, share in ranked:
            weights = [1.0 / (rank + 5.0) for rank in range(len(text))]
            total = sum(weights)
            for character, weight in zip(text, weights, strict=True):
                self._bits[character] = -math.log2(share * weight / total)
        if lonely is False:  # all in capitals is plain text too, all in swapped case is not
            self._bits |= {c.upper(): b + _CAPITAL_BITS for c, b in self._bits.items()}
        self._lonely, self._words = lonely, frozenset(words.split())

    def bits(self, character: str) -> float:
        """The information of a character, in bits; 0 for ASCII."""
        found = self._bits.get(character)
        return found if found is not None else self._unlisted(character)

    def context_bits(self, text: str) -> float:
        """What letters cost that stand beside letters they do not mix with, less what the words
        around them say for the script."""
        if self._lonely is None:
            return 0.0
        pattern = _FOREIGN_PAIR if self._lonely else _ODD_PAIR
        odd = sum(1 for _ in pattern.finditer(text))
        known = sum(word in self._words for word in _ASCII_WORD.findall(text))
        return _CONTEXT_BITS * odd - min(_MAX_WORDS_BITS, _WORD_BITS * known)

    def _unlisted(self, character: str) -> float:
        if "\x1f" < character < "\x7f" or character in "\n\r\t":
            bits = 0.0
        else:
            bits = _RARE_BITS if character.isprintable() else _DAMAGE_BITS
            if "\ue000" <= character <= "\uf8ff":
                bits = _DAMAGE_BITS
        self._bits[character] = bits
        return bits


_ASCII_WORD = re.compile(r"(?<!\w)[a-z]{1,5}(?!\w)")
# Overlapping pairs: the second character is only looked at. Marks and figures are no letters.
_FOREIGN_PAIR = re.compile(r"[^\W\d_a-zA-Z](?=[^\W\d_a-zA-Z])")
_ODD_PAIR = re.compile(
    r"[^\W\d_a-zA-Z](?=[a-zA-Z])|[a-zA-Z](?=[^\W\d_a-zA-Z])"
    "|[\u0430-\u045f\u03ac-\u03ce](?=[\u0400-\u042f\u0386-\u03ab])"
)


def _cased(text: str) -> str:
    """Small letters by frequency, then the capitals that are no more than two times rarer."""
    return text + "".join(c.upper() for c in text if len(c.upper()) == 1 and c.upper() not in text)


def _rows(codec: str, first: int, last: int) -> frozenset[str]:
    """The two-byte characters of a standard whose first byte lies in [first, last]."""
    pairs = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in range(0x40, 0xFF))
    return frozenset(
        c for pair in pairs if len(c := pair.decode(codec, "ignore")) == 1 and c > "\x7f"
    )


@cache
def scripts() -> dict[str, Script]:
    """The scripts by name."""
    # The standards themselves part common from rare characters: GB 2312 and JIS by level, Big5
    # too; KS X 1001 lists the syllables in use.
    marks = (_CHINESE_MARKS, 0.13)
    return {
        "simplified": Script(
            ((_HANS, 0.5), marks),
            (
                (_rows("gb2312", 0xA1, 0xA9), 0.005),
                (_rows("gb2312", 0xD8, 0xF7), 0.008),
                (_rows("gb2312", 0xB0, 0xD7), 0.36),
            ),
        ),
        "traditional": Script(
            ((_HANT, 0.5), marks),
            (
                (_rows("big5", 0xA1, 0xA3), 0.005),
                (_rows("big5", 0xC9, 0xF9), 0.008),
                (_rows("big5", 0xA4, 0xC6), 0.36),
            ),
        ),
        "japanese": Script(
            ((_KANA, 0.65), (_CHINESE_MARKS, 0.09)),
            (
                (_rows("euc_jp", 0xA1, 0xA8), 0.03),
                (_rows("euc_jp", 0xD0, 0xF4), 0.005),
                (_rows("euc_jp", 0xB0, 0xCF), 0.225),
            ),
        ),
        "korean": Script(
            ((_HANGUL, 0.7), (_CHINESE_MARKS, 0.01)),
            (
                (_rows("euc_kr", 0xA1, 0xAC), 0.005),
                (_rows("euc_kr", 0xCA, 0xFD), 0.002),
                (_rows("euc_kr", 0xB0, 0xC8), 0.28),
            ),
        ),
        "cyrillic": Script(((_RUSSIAN, 0.96), (_MARKS, 0.04)), lonely=False),
        "greek": Script(((_GREEK, 0.96), (_MARKS, 0.04)), lonely=False),
        "western": Script(((_cased(_WESTERN), 0.7), (_MARKS, 0.3)), (), True, _WESTERN_WORDS),
        "central": Script(((_cased(_CENTRAL), 0.8), (_MARKS, 0.2)), (), True, _CENTRAL_WORDS),
        "turkish": Script(((_TURKISH, 0.8), (_MARKS, 0.2)), (), True, _TURKISH_WORDS),
    }
