"""The fixed words of a report's page, in English and Korean."""

from typing import Final

from serving.experiments.report import Said


def _words(**pairs: tuple[str, str]) -> dict[str, Said]:
    return {key: Said(en=en, ko=ko) for key, (en, ko) in pairs.items()}


_WORDS: Final = _words(
    title=("Experiment report", "실험 보고서"),
    **{
        "continue": ("Continue", "계속"),
        "promote": ("Promote", "승격"),
        "roll_back": ("Roll back", "되돌리기"),
        "invalid": ("Invalid", "무효"),
        "better": ("better", "더 좋음"),
        "not_worse": ("not worse", "나쁘지 않음"),
        "worse": ("worse", "더 나쁨"),
        "undecided": ("undecided", "미정"),
        "ok": ("as agreed", "합의대로"),
        "alarm": ("alarm", "경보"),
        "too_few": ("too few units", "단위 부족"),
        "primary": ("Primary metric", "주 지표"),
        "guardrail": ("Guardrails", "안전 지표"),
        "signal": ("Signals", "참고 지표"),
        "paired": ("Paired: the same items under both arms", "쌍 비교: 같은 항목을 두 군이 처리"),
        "new": ("new", "신규"),
        "returning": ("returning", "재방문"),
        "one_request": ("one request", "요청 1건"),
        "several_requests": ("several requests", "요청 여러 건"),
        "monday": ("Monday", "월요일"),
        "tuesday": ("Tuesday", "화요일"),
        "wednesday": ("Wednesday", "수요일"),
        "thursday": ("Thursday", "목요일"),
        "friday": ("Friday", "금요일"),
        "saturday": ("Saturday", "토요일"),
        "sunday": ("Sunday", "일요일"),
        "visit": ("visit", "방문"),
        "weekday": ("weekday", "요일"),
        "activity": ("activity", "활동"),
        "negative": ("negative", "부정"),
        "neutral": ("neutral", "중립"),
        "positive": ("positive", "긍정"),
    },
    advance_yes=("The next phase may be opened.", "다음 단계를 열 수 있습니다."),
    advance_no=("Do not open the next phase yet.", "아직 다음 단계를 열지 마세요."),
    owner=("owner", "담당"),
    version=("version", "버전"),
    phase=("phase", "단계"),
    days=("days", "일"),
    deployment=("deployment", "배포"),
    counted_by=("counted by", "집계 단위"),
    user=("user", "사용자"),
    restaurant=("restaurant", "식당"),
    request=("request", "요청"),
    timeline=("Confidence sequence", "신뢰 구간의 변화"),
    units=("units", "단위"),
    arms=("Arms", "실험군"),
    arm=("arm", "군"),
    control=("control", "대조군"),
    model=("model", "모델"),
    share=("share", "비율"),
    asks=("requests", "요청"),
    answers=("answers", "응답"),
    failures=("failures", "실패"),
    outcomes=("outcomes", "결과"),
    metrics=("Metrics", "지표"),
    metric=("metric", "지표"),
    value=("arm", "실험군"),
    difference=("difference", "차이"),
    relative=("relative", "상대 차이"),
    interval=("interval", "구간"),
    worse_better=("worse ← → better", "나쁨 ← → 좋음"),
    reading=("reading", "판정"),
    adjusted_p=("adj. p", "보정 p"),
    variance_cut=("CUPED", "CUPED"),
    one_look=("for one look only", "한 번의 확인에만 유효"),
    segments=("Segments", "세그먼트"),
    segment=("segment", "세그먼트"),
    sample_ratio=("Sample ratio", "배정 비율"),
    ratio_by_segment=("By segment", "세그먼트별"),
    disagreements=("Disagreements", "응답이 다른 사례"),
    agreed=("agreed", "일치"),
    of=("of", "/"),
    item=("item", "항목"),
    nothing=("nothing yet", "아직 없음"),
    why=("note", "비고"),
    made=("made from", "자료"),
)
_NOTES: Final = {
    "timeline_note": Said(
        en="The primary metric's difference from the control after ever more units. The band holds "
        "at every look, so it may be watched as often as one likes; the dashed line is the loss "
        "that is accepted.",
        ko="단위가 늘어남에 따른 주 지표의 대조군 대비 차이입니다. 구간은 언제 보아도 유효하므로 "
        "얼마든지 자주 확인해도 됩니다. 점선은 허용한 손실입니다.",
    ),
    "segments_note": Said(
        en="The primary metric among some of the units; all intervals hold together. Those marked "
        "* are by what units did since they met an arm, so the arm may have moved units into them.",
        ko="일부 단위의 주 지표이며 모든 구간이 함께 유효합니다. * 표시는 군을 만난 뒤의 행동으로 "
        "나눈 것이므로 군이 구성 자체를 바꿨을 수 있습니다.",
    ),
    "none_dealt": Said(
        en="In a shadow the control answers everybody, so there is no ratio to check.",
        ko="섀도 단계에서는 대조군이 모두에게 응답하므로 확인할 비율이 없습니다.",
    ),
    "disagreements_note": Said(
        en="The same texts, answered by the control and, for the log alone, by the other arm. "
        "Texts are not stored; the request id finds them at whoever sent them.",
        ko="같은 글에 대해 대조군과, 기록용으로만 다른 군이 응답한 결과입니다. 글은 저장하지 "
        "않으니 요청 식별자로 보낸 쪽에서 찾으세요.",
    ),
}
WORDS: Final[dict[str, Said]] = _WORDS | _NOTES
