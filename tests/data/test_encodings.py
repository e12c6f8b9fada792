"""Bytes that we encode ourselves, so that the truth is known."""

from __future__ import annotations

import random

import pytest

from isoflop.data.encodings import decode

# Written for this test; each is about a kilobyte or more in the encodings below.
ENGLISH = (
    "The harbour was quiet that evening. “You’ve come too late,” said the keeper, and he didn’t "
    "look up from his ledger — he never did. A café on the quay had its lamps lit; two sailors "
    "argued about the price of coal, £3 a ton or thereabouts… Nobody’s voice carried far. The "
    "naïve young clerk, whose résumé listed eleven trades, wrote each figure down twice, in case "
    "one copy was lost. “It isn’t the sea that takes ships,” the keeper went on, “it’s arithmetic."
    "” By midnight the tide had turned, and the last boat – a collier with a patched sail – slid "
    "out past the mole. They’d all forgotten the lantern. What remained was a smell of tar, and "
    "the sound of water between stones. In the morning the clerk counted once more and found that "
    "the sums agreed, which was more than anyone had hoped for. He closed the book, blew out the "
    "candle, and walked home along the wall, where the gulls were already quarrelling about fish.\n"
)
SIMPLIFIED = (
    "清晨的街道上还没有什么人，只有卖豆浆的老王推着小车慢慢走过。他每天五点起床，先磨豆子，再烧开水，"
    "二十年来从没有间断过。“今天会下雨吗？”邻居家的孩子从窗口探出头来问。老王抬头看了看天，说：“不会，"
    "风是从北边来的。”孩子不太相信，可是到了中午，云果然散开了，太阳照在屋顶上，亮得让人睁不开眼睛。学"
    "校里，老师正在讲水的三种形态：冰、水和水蒸气。她在黑板上画了一条曲线，说明温度怎样随着时间变化。有"
    "个学生举手提问：为什么雪比雨轻？老师没有直接回答，而是请大家回家以后做一个实验，把同样多的雪和水分"
    "别称一称，第二天再讨论结果。晚上，那个学生真的拿了两只杯子，一只装满雪，一只装满水，放在厨房的秤上"
    "。他发现雪化了以后只剩下小半杯水，于是高兴地写在本子里。第二天早晨，他又遇见了老王，便把这个发现告"
    "诉了他。老王笑着说：“磨豆子也是一样，泡过水的豆子看起来多了一倍，其实并没有多出来。”\n"
)
TRADITIONAL = (
    "清晨的街道上還沒有什麼人，只有賣豆漿的老王推著小車慢慢走過。他每天五點起床，先磨豆子，再燒開水，"
    "二十年來從沒有間斷過。「今天會下雨嗎？」鄰居家的孩子從窗口探出頭來問。老王抬頭看了看天，說：「不會，"
    "風是從北邊來的。」孩子不太相信，可是到了中午，雲果然散開了，太陽照在屋頂上，亮得讓人睜不開眼睛。學"
    "校裡，老師正在講水的三種形態：冰、水和水蒸氣。她在黑板上畫了一條曲線，說明溫度怎樣隨著時間變化。有"
    "個學生舉手提問：為什麼雪比雨輕？老師沒有直接回答，而是請大家回家以後做一個實驗，把同樣多的雪和水分"
    "別稱一稱，第二天再討論結果。晚上，那個學生真的拿了兩只杯子，一只裝滿雪，一只裝滿水，放在廚房的秤上"
    "。他發現雪化了以後只剩下小半杯水，於是高興地寫在本子裡。第二天早晨，他又遇見了老王，便把這個發現告"
    "訴了他。老王笑著說：「磨豆子也是一樣，泡過水的豆子看起來多了一倍，其實並沒有多出來。」\n"
)
FRENCH = (
    "Le garçon n’avait jamais vu la mer. Son père, ébéniste à Besançon, lui répétait que l’été "
    "suivant ils prendraient le train jusqu’à la côte, mais l’été passait et l’atelier restait "
    "ouvert. « Où est-ce que ça commence ? » demandait-il à sa sœur aînée, qui levait les yeux de "
    "son cahier : « Là où tu t’arrêtes de marcher. » Un matin de février, pourtant, la lettre "
    "arriva. Une tante éloignée, veuve depuis des années, leur léguait une maison près de Saint-"
    "Malo, avec un grenier plein de cartes et de vieux instruments dont personne ne connaissait "
    "plus l’usage. Le père hésita, compta ses économies, puis ferma l’atelier à clé. Ils "
    "traversèrent la France en deux jours ; le garçon, collé à la fenêtre, notait les noms des "
    "gares. Lorsqu’il aperçut enfin l’eau, grise et immense, il ne dit rien. Plus tard, il "
    "écrirait que le bruit l’avait surpris davantage que la taille.\n"
)
RUSSIAN = (
    "Поезд пришёл на станцию уже ночью. Снег лежал на крышах, на скамейках, на плечах дежурного, "
    "который держал фонарь и смотрел в сторону леса. «Вы к кому?» — спросил он, когда из вагона "
    "вышел единственный пассажир с тяжёлым чемоданом. Тот ответил не сразу. Он ехал трое суток, "
    "потому что обещал когда-то вернуться, и теперь не знал, помнит ли его кто-нибудь. Дорога до "
    "деревни занимала около часа. Лошадь шла медленно, возница рассказывал про новый мост, про "
    "школу, где не хватает учителей, и про то, как весной вода поднялась до самых окон. В доме "
    "горел свет. Старая женщина открыла дверь, долго смотрела на гостя и наконец сказала, что чай "
    "ещё не остыл. Утром они вместе чистили дорожку к колодцу, и Анна Петровна объясняла, какие "
    "соседи уехали, а какие остались. Зима в тот год была долгой, но никто не жаловался.\n"
)
JAPANESE = (
    "駅前の小さな本屋は、今日もまだ明かりがついていた。店の主人は七十歳を過ぎた人で、客が来ても来なく"
    "ても、いつも同じ椅子に座って本を読んでいる。「何かお探しですか」と聞かれることはほとんどない。私は"
    "学生のころからこの店に通っているが、話をしたのは数えるほどしかない。ある雨の日、古い地図の本を手に"
    "取ると、主人が初めて声をかけてきた。「それは私が作った地図です。」驚いて顔を上げると、彼は少し笑っ"
    "た。若いころ、山の測量をしていたのだという。カメラもコンピュータもない時代に、歩いて距離をはかり、"
    "夜になるとノートに線を引いた。その話を聞いてから、私はこの町の道を前とは違う目で見るようになった。\n"
)
KOREAN = (
    "아침마다 할머니는 마당을 쓸고 나서 우물가에 앉아 차를 마셨다. 그 집에는 오래된 "
    "감나무가 한 그루 있었는데, 가을이 되면 아이들이 모여들어 감이 떨어지기를 기다렸다"
    ". 할머니는 아이들을 쫓아내지 않고 오히려 이야기를 들려주었다. 옛날에 이 마을에는"
    " 다리가 없어서 사람들이 배를 타고 강을 건넜다고 한다. 비가 많이 오는 날이면 학"
    "교에 갈 수 없었고, 그런 날에는 모두 집에서 책을 읽거나 바느질을 했다. 지금은 "
    "다리도 있고 버스도 다니지만, 할머니는 여전히 강가를 걷는 것을 좋아한다. 물소리를"
    " 들으면 마음이 편해진다고 말씀하셨다. 나는 그 이야기를 공책에 적어 두었다가 동생"
    "에게 다시 읽어 주었다.\n"
)
WRITTEN_IN = [
    (ENGLISH, "utf-16"), (ENGLISH, "utf-16-le"), (ENGLISH, "utf-16-be"), (ENGLISH, "cp1252"),
    (ENGLISH, "utf-8-sig"), (ENGLISH, "utf-32"),
    (SIMPLIFIED, "utf-8"), (SIMPLIFIED, "gb18030"), (SIMPLIFIED, "gb2312"),
    (SIMPLIFIED, "utf-16-le"), (SIMPLIFIED, "utf-16-be"),
    (TRADITIONAL, "big5"), (TRADITIONAL, "gbk"), (TRADITIONAL, "utf-16-le"),
    (FRENCH, "cp1252"), (FRENCH, "utf-16-be"),
    (RUSSIAN, "cp1251"), (RUSSIAN.upper(), "cp1251"), (RUSSIAN, "koi8-r"), (RUSSIAN, "iso8859-5"),
    (RUSSIAN, "utf-16-le"),
    (JAPANESE, "cp932"), (JAPANESE, "euc-jp"), (JAPANESE, "iso2022-jp"),
    (KOREAN, "euc-kr"),
]  # fmt: skip


def pieces(text: str, encoding: str, size: int, count: int) -> list[str]:
    """Stretches of a text that take about `size` bytes in an encoding."""
    draw = random.Random(f"{encoding}{size}")
    characters = round(size * len(text) / len(text.encode(encoding, "replace")))
    last = max(1, len(text) - characters)
    return [text[s : s + characters] for s in (draw.randrange(last) for _ in range(count))]


def writable(text: str, encoding: str) -> str:
    return text.encode(encoding, "ignore").decode(encoding)


def assert_right(text: str, encoding: str, size: int, count: int, share: float) -> None:
    """At least a share is read, and nothing is read wrongly."""
    found = pieces(writable(text, encoding), encoding, size, count)
    right = 0
    for piece in found:
        decoded = decode(piece.encode(encoding))
        assert decoded is None or decoded.text == piece
        right += decoded is not None
    assert right >= share * len(found)


@pytest.mark.parametrize(("text", "encoding"), WRITTEN_IN)
def test_500_bytes_are_enough(text: str, encoding: str) -> None:
    assert_right(text, encoding, 500, 30, 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("size", [500, 900])
@pytest.mark.parametrize(("text", "encoding"), WRITTEN_IN)
def test_500_bytes_are_enough_99_times_in_100(text: str, encoding: str, size: int) -> None:
    assert_right(text, encoding, size, 500, 0.99)


@pytest.mark.parametrize("size", [12, 20, 60])
@pytest.mark.parametrize(("text", "encoding"), WRITTEN_IN)
def test_a_short_text_is_read_rightly_or_not_at_all(text: str, encoding: str, size: int) -> None:
    assert_right(text, encoding, size, 15, 0.0)


@pytest.mark.parametrize("second", ["utf-8", "big5", "koi8-r"])
@pytest.mark.parametrize("first", ["gb18030", "cp1251"])
def test_two_encodings_in_one_file_are_never_read_as_one(first: str, second: str) -> None:
    texts = {"gb18030": SIMPLIFIED, "utf-8": SIMPLIFIED, "big5": TRADITIONAL}
    parts = [texts.get(name, RUSSIAN).encode(name, "ignore") for name in (first, second)]
    assert decode(parts[0] * 20 + parts[1]) is None


def test_noise_and_archives_are_no_text() -> None:
    draw = random.Random(1)
    for _ in range(100):
        assert decode(draw.randbytes(600)) is None
    assert decode(bytes(range(256)) * 4) is None


def test_a_declared_encoding_is_believed_unless_the_bytes_say_otherwise() -> None:
    polish = "Zażółć gęślą jaźń"
    assert decode(polish.encode("cp1250"), "windows-1250").text == polish  # type: ignore[union-attr]
    assert decode(FRENCH.encode(), "iso-8859-1").text == FRENCH  # type: ignore[union-attr]
    assert decode("naïve ’tis".encode("cp1252"), "latin-1").text == "naïve ’tis"  # type: ignore[union-attr]
    assert decode(SIMPLIFIED.encode("gb18030"), "gb2312").text == SIMPLIFIED  # type: ignore[union-attr]
    assert decode(RUSSIAN.encode("cp1251"), "no-such-name").text == RUSSIAN  # type: ignore[union-attr]
    assert decode(RUSSIAN.encode("cp1251"), "rot13").text == RUSSIAN  # type: ignore[union-attr]


def test_stray_nuls_do_not_make_a_text_binary() -> None:
    text = "a line of text\n" * 100 + "\0" + SIMPLIFIED
    assert decode(text.encode()).text == text  # type: ignore[union-attr]
    assert decode(b"\0" * 100) is None
