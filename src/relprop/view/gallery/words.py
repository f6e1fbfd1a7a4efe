"""What a report says in English and in Korean, and the figures in it."""

from __future__ import annotations

from collections.abc import Mapping

from relprop.errors import InvalidInput

Words = str | Mapping[str, str]

LANGUAGES = ("en", "ko")

# By key: (English, Korean). {places} are filled in from values.
SAID: dict[str, tuple[str, str]] = {
    "title": ("What was relevant", "무엇이 결정에 기여했나"),
    "mark": ("Explanation report", "설명 보고서"),
    "one_input": ("1 input", "입력 1개"),
    "inputs": ("{count} inputs", "입력 {count}개"),
    "one_failed": ("1 could not be explained", "1개는 설명하지 못했습니다"),
    "failed": ("{count} could not be explained", "{count}개는 설명하지 못했습니다"),
    "right_of": ("{right} of {known} answers right", "답 {known}개 중 {right}개가 맞음"),
    "interrupted": (
        "The work was stopped before its end: this page holds what was done until then.",
        "작업이 끝나기 전에 중단되었습니다. 이 페이지에는 그때까지의 결과가 있습니다.",
    ),
    "reading": (
        "Red is evidence for what is explained, blue is evidence against it; without colour, there is none.",
        "빨간색은 설명하는 대상에 대한 찬성 근거, 파란색은 반대 근거입니다. 색이 없으면 관련성이 없습니다.",
    ),
    "reading_unsigned": (
        "Where a method has no sign, red says how strongly the score reacts.",
        "부호가 없는 방법에서 빨간색은 점수가 얼마나 민감하게 변하는지를 나타냅니다.",
    ),
    "against": ("evidence against", "반대 근거"),
    "for": ("evidence for", "찬성 근거"),
    "balance": ("Where the score went", "점수가 간 곳"),
    "balance_about": (
        "Means over the inputs. LRP redistributes the score onto the input; what does not arrive there stayed in the "
        "network, for the reasons in the last column.",
        "입력들의 평균입니다. LRP는 점수를 입력으로 나누어 줍니다. 입력에 도달하지 않은 몫은 신경망 안에 남았으며, "
        "마지막 열이 그 까닭입니다.",
    ),
    "model": ("model", "모델"),
    "method": ("method", "방법"),
    "count": ("inputs", "입력 수"),
    "score": ("score", "점수"),
    "sum": ("sum of relevance", "관련성 점수의 합"),
    "difference": ("|score − sum|", "|점수 − 합|"),
    "causes": ("stayed in the network", "신경망 안에 남은 몫"),
    "none": ("nothing", "없음"),
    "unknown": ("not examined", "조사하지 않음"),
    "no_redistribution": ("does not divide the score up", "점수를 나누어 주지 않는 방법"),
    "explained": ("explained", "설명한 대상"),
    "answer": ("the model's answer", "모델의 답"),
    "truth": ("truth", "정답"),
    "right": ("right", "맞음"),
    "wrong": ("wrong", "틀림"),
    "input": ("input", "입력"),
    "alt_input": ("What the model saw: {name}", "모델이 본 것: {name}"),
    "alt_map": (
        "Heatmap by {title} of the relevance for {claim}; sum {sum}",
        "{title}(으)로 구한 {claim}에 대한 관련성 히트맵, 합 {sum}",
    ),
    "little_arrived": (
        "{methods}: little of the score reaches the input (most often biases keep the rest); read the map for its "
        "proportions, not for its sum.",
        "{methods}: 점수가 입력까지는 거의 도달하지 않습니다(나머지는 대개 편향에 남습니다). 히트맵은 합이 아니라 "
        "비율로 읽으십시오.",
    ),
    "sum_short": ("sum {sum}", "합 {sum}"),
    "failures": ("Not explained", "설명하지 못한 입력"),
    "notes": ("Notes", "참고"),
    "language": ("Language", "언어"),
    "theme": ("Colours of the page", "페이지 색"),
    "theme_auto": ("System", "시스템"),
    "theme_light": ("Light", "밝게"),
    "theme_dark": ("Dark", "어둡게"),
    "tools": ("Sort and filter", "정렬과 필터"),
    "sort": ("Sort by", "정렬"),
    "sort_order": ("order", "순서"),
    "sort_score": ("score", "점수"),
    "sort_sum": ("sum of relevance", "관련성 점수의 합"),
    "sort_difference": ("|score − sum|", "|점수 − 합|"),
    "sort_class": ("class", "클래스"),
    "sort_name": ("name", "이름"),
    "ascending": ("Ascending", "오름차순"),
    "descending": ("Descending", "내림차순"),
    "find": ("Find", "찾기"),
    "find_hint": ("name or text", "이름이나 글"),
    "class": ("Class", "클래스"),
    "all": ("all", "전체"),
    "answers": ("Answers", "답"),
    "group": ("Model", "모델"),
    "methods": ("Methods", "방법"),
    "scale": ("Full colour", "가장 진한 색"),
    "scale_own": ("each map's own", "히트맵마다"),
    "scale_item": ("one for each input", "입력마다 하나"),
    "scale_all": ("one for all of a model", "모델마다 하나"),
    "shown": ("{shown} of {count} shown", "{count}개 중 {shown}개 표시"),
    "nothing_fits": ("No input fits.", "조건에 맞는 입력이 없습니다."),
    "show_all": ("Show all", "모두 보기"),
    "open": ("Look closer", "자세히 보기"),
    "previous": ("Previous", "이전"),
    "next": ("Next", "다음"),
    "close": ("Close", "닫기"),
    "place": ("{place} of {count}", "{count}개 중 {place}번째"),
    "opacity": ("Opacity of the heatmaps over the picture", "사진 위 히트맵의 불투명도"),
    "rounded": (
        "The values behind the maps are stored with 11 bits: a relative error of at most 0.05 %. Scores and sums are "
        "exact.",
        "히트맵의 값은 11비트 정밀도로 저장되어 상대 오차가 최대 0.05 %입니다. 점수와 합은 정확합니다.",
    ),
    "made_by": (
        "Made by relprop {version}. The page is complete in itself: it fetches nothing.",
        "relprop {version}(으)로 만들었습니다. 이 페이지는 다른 것을 내려받지 않습니다.",
    ),
    "cause bias": ("biases", "편향"),
    "cause stabiliser": ("stabiliser", "안정화 항"),
    "cause empty denominator": ("empty denominator", "빈 분모"),
    "cause softmax": ("softmax", "softmax"),
    "cause constant": ("constants", "상수"),
    "cause rule": ("the rule", "규칙"),
    "cause value zero": ("value zero", "값이 0인 출력"),
    "cause initial state": ("initial state", "초기 상태"),
    "cause rounding": ("rounding", "반올림"),
    "cause other": ("other", "그 밖"),
}


def checked_language(language: str) -> str:
    """The language, if a report can be in it. Raises InvalidInput."""
    if language not in LANGUAGES:
        raise InvalidInput(f"language={language!r}: a report is in 'en' (English) or 'ko' (Korean)")
    return language


def said(key: str, language: str, **values: str | int) -> str:
    """A sentence of the report in one language."""
    return SAID[key][LANGUAGES.index(language)].format(**values)


def in_language(words: Words, language: str) -> str:
    """What a user wrote, in this language where it was given in several, else in the first of them."""
    if isinstance(words, str):
        return words
    return words.get(language) or next(iter(words.values()))


def number(value: float) -> str:
    """A signed figure with four digits and a real minus."""
    return f"{value:+.4g}".replace("-", "\u2212")
