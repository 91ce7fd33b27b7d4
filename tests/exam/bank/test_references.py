"""What a stem refers to outside itself, in invented stems of every wording that is known."""

from __future__ import annotations

import time

import pytest

from tasks.exam.bank.references import Reference, announced_case, refers_back, resolves, shows_a_picture

BACK: dict[str, Reference] = {
    "この患者に投与する薬物はどれか。": Reference("患者"),
    "法令上、この粉末Zが該当するのはどれか。": Reference("粉末Z"),
    "当該医薬品の販売について正しいのはどれか。": Reference("医薬品"),
    "本症例の治療として適切なのはどれか。": Reference("症例"),
    "同患者の検査値はどれか。": Reference("患者"),
    "上記患者の次の治療はどれか。": Reference("患者"),
    "前述の患者が来局した。": Reference("患者"),
    "乾癬は炎症性の疾患である。この患者の病態はどれか。": Reference("患者"),
    "前問で求めた速度で投与する。": Reference(questions=frozenset({9})),
    "前の問題で選んだ薬物はどれか。": Reference(questions=frozenset({9})),
    "問８で求めた値を用いよ。": Reference(questions=frozenset({8})),
    "問8及び前問の値を用いよ。": Reference(questions=frozenset({8, 9})),
    "上記処方せんに対する疑義照会はどれか。": Reference("処方"),
}
BY_ITSELF = (
    "60歳男性。高血圧である。この患者に投与する薬物はどれか。",
    "ある弱酸性薬物の溶解度を測定した。この薬物のpKaはどれか。",
    "リン酸緩衝液を調製した。この緩衝液のpHはどれか。",
    "日本薬局方の基本薬はどれか。",
    "退院した患者が在宅療養となった。薬剤師がその患者に行うのはどれか。",
    "図は反応の経時変化である。この図に関する記述はどれか。",
    "35歳女性。頭痛がある。問 10（実務） この女性への対応はどれか。",
    "同時に服用してはならないのはどれか。",
    "問10の記述のうち、正しいのはどれか。",
    "訪問3か月後に確認すべきなのはどれか。質問2の答えはどれか。",
    "以前問題となった薬害はどれか。事前の問診で確認するのはどれか。",
    "以下の処方が出された。上記処方に関する記述はどれか。",
    "問1で示す物質はどれか。",
)


@pytest.mark.parametrize("stem", BACK)
def test_a_stem_that_refers_back(stem: str) -> None:
    assert refers_back(stem, 10) == BACK[stem]


@pytest.mark.parametrize("stem", BY_ITSELF)
def test_a_stem_that_stands_by_itself(stem: str) -> None:
    assert refers_back(stem, 10) is None


@pytest.mark.parametrize(
    ("noun", "told", "found"),
    [
        ("患者", "45歳の会社員が来局した。", True),
        ("患者", "酵素の反応速度を測定した。", False),
        ("疾患", "22歳女性。動悸がある。", True),
        ("医薬品A", "錠剤の成分は医薬品Aである。", True),
        ("医薬品B", "錠剤の成分は医薬品Aである。", False),
        ("粉末Ｚ", "白い粉末Zが見つかった。", True),
        ("患者", "", False),
    ],
)
def test_what_was_told_resolves_a_reference(noun: str, told: str, found: bool) -> None:
    reference = refers_back(f"この{noun}について、正しいのはどれか。", 10)
    assert reference is not None
    assert resolves(reference, told) is found


@pytest.mark.parametrize(
    ("stem", "last"),
    [
        ("60歳男性。次の問204〜207に答えよ。", 207),
        ("60歳男性。（問２０４～２０７）", 207),
        ("60歳男性。（問204-問206）", 206),
        ("60歳男性。", 204),
        ("問203〜206は前の事例である。", 204),
        ("問204〜345に答えよ。", 204),
    ],
)
def test_the_case_that_a_stem_announces(stem: str, last: int) -> None:
    assert announced_case(stem, 204) == last


PICTURED = (
    "図のように、膜で隔てられている。",
    "図は、血中濃度の推移である。",
    "下図の化合物はどれか。",
    "次の構造式で表される薬物はどれか。",
    "表は、年齢別の人口を示す。",
    "以下の処方で治療を開始した。その後、悪心が現れた。",
    "以下の投与量で実施した。その後、下痢（1日2回程度）が現れた。",
    "処方2の薬物の作用はどれか。",
    "グラフは、生存率の推移である。",
    "表1は、年齢別の割合である。",
    "下記の成分を含有する一般用医薬品を購入した。適切なのはどれか。",
)
PLAIN = (
    "心電図に異常を認めなかった。この所見はどれか。",
    "代表は誰か。意図は何か。",
    "次の表現のうち、正しいのはどれか。",
    "以下の記述のうち、正しいのはどれか。",
    "食品の表示を図る制度はどれか。",
    "以下の処方で治療を開始した。（処方）薬物A錠5 mg 1回1錠 1日1回朝食後",
    "液体クロマトグラフィーにより分離した。",
    "次の反応に関する記述はどれか。A → B",
    "以下の薬剤のうち、禁忌なのはどれか。",
)


@pytest.mark.parametrize("stem", PICTURED)
def test_a_stem_that_speaks_of_a_picture(stem: str) -> None:
    assert shows_a_picture(stem)


@pytest.mark.parametrize("stem", PLAIN)
def test_a_stem_without_a_picture(stem: str) -> None:
    assert not shows_a_picture(stem)


def test_an_option_that_speaks_of_a_picture() -> None:
    assert shows_a_picture("正しいのはどれか。", ("図中のAは湖沼である。", "Bは河川である。"))
    assert not shows_a_picture("正しいのはどれか。", ("処方1は過量である。", "心電図に異常はない。"))


@pytest.mark.parametrize("piece", ["この薬", "この患者", "以下の処方", "問1の", "図は", "前問", "処方1 ", "問1〜"])
def test_a_stem_of_the_greatest_length_is_read_at_once(piece: str) -> None:
    stem = piece * (20_000 // len(piece))
    began = time.monotonic()
    refers_back(stem, 10), announced_case(stem, 10), shows_a_picture(stem)
    assert time.monotonic() - began < 5
