from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isoflop.data.language import identify

SENTENCES = {
    "en": (
        "The committee will meet tomorrow morning to discuss the budget for next year.",
        "I can't believe how quickly the weather changed over the hills last night.",
        "She returned the library books, bought some bread and walked home in the rain.",
    ),
    "de": (
        "Der Zug kam gestern wegen des starken Schnees mit großer Verspätung an.",
        "Wir haben im Garten Tomaten gepflanzt und warten auf den Sommer.",
    ),
    "fr": (
        "Le boulanger du village prépare son pain avant le lever du soleil.",
        "Nous avons traversé la rivière sans mouiller nos chaussures.",
    ),
    "es": (
        "El panadero del pueblo prepara el pan antes de que salga el sol.",
        "Mañana iremos al mercado para comprar naranjas y queso.",
    ),
    "it": (
        "Il fornaio del paese prepara il pane prima che sorga il sole.",
        "Domani andremo al mercato per comprare arance e formaggio.",
    ),
    "pt": (
        "O padeiro da aldeia prepara o pão antes de o sol nascer.",
        "Amanhã vamos ao mercado comprar laranjas e queijo.",
    ),
    "nl": (
        "De bakker van het dorp bakt zijn brood voor de zon opkomt.",
        "Morgen gaan wij naar de markt om sinaasappels en kaas te kopen.",
    ),
    "sv": ("Bagaren i byn bakar sitt bröd innan solen går upp.",),
    "pl": ("Jutro pójdziemy na targ, żeby kupić pomarańcze i ser.",),
    "tr": ("Köyün fırıncısı güneş doğmadan önce ekmeğini hazırlar.",),
    "vi": ("Người thợ làm bánh trong làng nướng bánh trước khi mặt trời mọc.",),
    "id": ("Tukang roti di desa itu memanggang roti sebelum matahari terbit.",),
    "zh-Hans": (
        "村里的面包师在太阳升起之前烤好了面包。",
        "他们决定明天早上开会讨论预算。",
        "用 Python 写的 program 运行得很快，大家都觉得 amazing。",
    ),
    "zh-Hant": ("村裡的麵包師在太陽升起之前烤好了麵包。", "他們決定明天早上開會討論預算。"),
    "ja": (
        "村のパン屋は日の出前にパンを焼きます。",
        "明日の朝、予算について会議を開くことにしました。",
        "営業時間変更案内 駅前広場 図書館",
    ),
    "ko": (
        "마을의 빵집 주인은 해가 뜨기 전에 빵을 굽습니다.",
        "내일 회의에서 예산을 논의하기로 했다.",
    ),
    "und-Cyrl": ("Пекарь в деревне печёт хлеб до восхода солнца.",),
    "und-Arab": ("يخبز خباز القرية الخبز قبل شروق الشمس.",),
    "und-Grek": ("Ο φούρναρης του χωριού ψήνει το ψωμί.",),
    "und-Latn": (
        "Amaqabane ahlanganisa izinhlelo zokwakha isikole esisha emphakathini wethu.",
        "Xqzt vvlk prrgh wmnb tssk jjfh qqwp zzxv bbnm kklp.",
    ),
    "code": (
        "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n",
        'int main(void) {\n    printf("hi\\n");\n    return 0;\n}\n',
        "const x = require('x');\nmodule.exports = function (y) { return x(y); };\n",
        "SELECT name, age\nFROM people\nWHERE age > 3;\n",
        '{\n  "name": "x",\n  "version": "1"\n}\n',
        "#include <stdio.h>\n// 打印\nstatic int f(int x)\n{\n    return x + 1;\n}\n",
    ),
    "und": ("12345 67890 !!! ???", ""),
}


@pytest.mark.parametrize(
    ("tag", "sentence"), [(tag, sentence) for tag, all_ in SENTENCES.items() for sentence in all_]
)
def test_a_sentence_is_known(tag: str, sentence: str) -> None:
    assert identify(sentence).tag == tag


def test_scores_lie_between_0_and_1_and_a_mixed_text_scores_less() -> None:
    scores = [identify(s).score for sentences in SENTENCES.values() for s in sentences]
    assert all(0.0 <= score <= 1.0 for score in scores)
    english, russian = SENTENCES["en"][0], SENTENCES["und-Cyrl"][0]
    mixed = identify(f"{english} {russian} {russian[:20]}")
    assert mixed.score < 0.8 < identify(english).score


def test_the_middle_and_the_end_of_a_long_text_count() -> None:
    title, body = "The title page of a book. " * 20, SENTENCES["zh-Hans"][1] * 400
    assert identify(title + body).tag == "zh-Hans"


def test_most_files_of_a_python_package_are_code() -> None:
    library = Path(sys.modules["json"].__file__ or "").parents[1] / "asyncio"
    tags = [identify(path.read_text("utf-8")).tag for path in sorted(library.glob("*.py"))]
    # Some are docstrings for the most part.
    assert tags.count("code") >= 0.85 * len(tags)


def test_a_table_of_figures_is_in_no_language() -> None:
    assert identify("   4.6000000e-01   4.3000000e-01   5.4000000e-01\n" * 20).tag == "und"
