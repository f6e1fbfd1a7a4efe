/** The viewer's words, in English and Korean, and how numbers are written. */

export const WORDS = {
  en: {
    the_score: "the score",
    for: "evidence for {claim}",
    against: "evidence against {claim}",
    neutral: "neither for nor against",
    reacts: "how much the score of {claim} reacts, in either direction",
    no_reaction: "no reaction",
    white_zero: "White: no relevance.",
    picture_zero: "The picture in grey: no relevance.",
    word_zero: "No colour: no relevance.",
    full_colour: "Full colour: {limit} or more.",
    full_colour_signed: "Full colour: {limit} or more, of either sign.",
    all_zero: "All relevance is zero.",
    unknown: "dotted frame: not in the model's vocabulary",
    unknown_word: "not in the model's vocabulary",

    heatmap: "heatmap",
    heatmap_of: "Heatmap for {claim}, {width} by {height} values.",
    series_of: "Relevance for {claim}: {height} channels, {width} time steps.",
    strongest_for: "Strongest evidence for it: {value}, {where}.",
    strongest_against: "Strongest evidence against it: {value}, {where}.",
    strongest: "The score reacts most to {where}: {value}.",
    keys: "Arrow keys move from value to value, with Shift by ten; plus and minus go to the strongest evidence for and against.",
    hint_map: "Point at the map, or use the arrow keys.",
    hint_words: "Point at a word, or use the arrow keys.",
    hint_delete: "Delete removes it.",
    place: "row {row}, column {column}",
    place_series: "time step {column}, channel {row}",
    place_vector: "value {column}",
    region: "{vertical} {horizontal}",
    upper: "upper",
    middle: "middle",
    lower: "lower",
    left: "left",
    centre: "centre",
    right: "right",
    time: "time step",
    values: "values",
    channel: "channel {index}",
    channels: "The channels of {layer} with the largest sums",
    channels_scale: "All channels on one scale: full colour from {limit} on.",
    opacity: "Opacity of the heatmap over the picture",
    picture_only: "picture",
    map_only: "heatmap",
    at_layer: "at {layer}",
    custom_rules: "custom rules",

    text_of: "The text, painted with the relevance of each word for {claim}",
    delete: "Delete the word {word}",
    tokens: "Tokens the model was given ({count})",
    apart: "apart from the text",
    special: "of it, in tokens apart from the text",

    score: "Score of {claim}",
    sum: "Sum of relevance",
    balance: "Where the score went",
    sum_layer: "Sum of relevance at {layer}",
    not_passed: "stayed in the network",
    little_arrived:
      "Little of the score reaches the input (most often biases keep the rest): read the map for its proportions, not for its sum.",
    all_arrived: "As far as four digits show, the score reached the input in full.",
    no_split: "This method does not divide the score up, so its sum is not meant to be the score.",
    to_baseline: "The sum of this method is meant to be the score minus that of its baseline.",
    where: "Where did it stay?",
    small: "smaller parts",
    bias: "biases",
    stabiliser: "stabiliser",
    "empty denominator": "empty denominator",
    constant: "constants",
    "initial state": "initial state",
    "value zero": "value zero",
    softmax: "softmax",
    rounding: "rounding",
    rule: "the rule",
    other: "other",
    why_arrived: "What was redistributed onto the input: all relevance of the map, added up.",
    why_arrived_layer: "What arrived at the output of this layer: all relevance of its channels, added up.",
    why_bias: "Biases, and the shift of batch norm, add to a score whatever the input is; they keep their share of it.",
    why_stabiliser: "A small number (epsilon) keeps denominators away from zero; it takes a small share along.",
    "why_empty denominator": "A neuron got relevance but had no contribution of the sign that its rule shares it among.",
    why_constant: "A constant beside the signals, such as a class token or padding, has a share that belongs to no input.",
    "why_initial state": "A recurrent layer starts from a state that is no input of the model; that state keeps its share.",
    "why_value zero": "Relevance came to an output that is exactly zero: none of its inputs made it, so none gets a share.",
    why_softmax: "The softmax rule of AttnLRP has a term of its own, so it passes on more or less than it receives.",
    why_rounding: "Numbers in a computer have a limited number of digits; what is lost by that.",
    why_rule: "The rule that was chosen for an operation does not pass on all that it receives.",
    why_other: "An operation passed on less or more than it received, for a reason that is not counted apart.",
    why_not_passed: "The network itself contributed to the score: its biases, for example, which look at no input.",
    why_small: "All parts that are below a thousandth of the largest, added up.",

    operations: "Operations and rules",
    operations_count: "{count} operations, from the input to the score",
    operation: "operation",
    rule_used: "rule",
    received: "received",
    passed: "passed on",
    lost: "stayed there",
    loading: "Computing …",
    again: "Try again",
    failed: "That did not work: {error}",
    notes: "Notes",
    download: "Download",
    png: "picture (PNG)",
    svg: "vector picture (SVG)",
    html: "page (HTML)",
    npz: "figures (NPZ)",
    csv: "table (CSV)",
    json: "figures (JSON)",
    scores: "Classes",
    scores_hint: "Choose a class to see what speaks for it and against it.",
    row: "row",
    column: "column",
    relevance: "relevance",
    word: "word",
  },
  ko: {
    the_score: "점수",
    for: "{claim}에 대한 찬성 근거",
    against: "{claim}에 대한 반대 근거",
    neutral: "찬성도 반대도 아님",
    reacts: "{claim}의 점수가 (어느 방향으로든) 반응하는 정도",
    no_reaction: "반응 없음",
    white_zero: "흰색: 관련성 없음.",
    picture_zero: "회색 사진이 보이는 곳: 관련성 없음.",
    word_zero: "색 없음: 관련성 없음.",
    full_colour: "가장 진한 색: {limit} 이상.",
    full_colour_signed: "가장 진한 색: 부호와 관계없이 크기 {limit} 이상.",
    all_zero: "관련성 점수가 모두 0입니다.",
    unknown: "점선 테두리: 모델의 어휘에 없는 낱말",
    unknown_word: "모델의 어휘에 없음",

    heatmap: "히트맵",
    heatmap_of: "{claim}에 대한 히트맵, 가로 {width} × 세로 {height}.",
    series_of: "{claim}에 대한 관련성: 채널 {height}개, 시점 {width}개.",
    strongest_for: "가장 강한 찬성 근거: {value}, {where}.",
    strongest_against: "가장 강한 반대 근거: {value}, {where}.",
    strongest: "점수가 가장 크게 반응하는 곳: {where}, {value}.",
    keys: "화살표 키로 값 사이를 이동하고, Shift와 함께 누르면 열 칸씩 이동합니다. 더하기와 빼기 키는 가장 강한 찬성·반대 근거로 갑니다.",
    hint_map: "히트맵을 가리키거나 화살표 키를 눌러 보십시오.",
    hint_words: "낱말을 가리키거나 화살표 키를 눌러 보십시오.",
    hint_delete: "Delete 키로 낱말을 지웁니다.",
    place: "{row}행 {column}열",
    place_series: "시점 {column}, 채널 {row}",
    place_vector: "{column}번째 값",
    region: "{horizontal} {vertical}",
    upper: "위",
    middle: "중간",
    lower: "아래",
    left: "왼쪽",
    centre: "가운데",
    right: "오른쪽",
    time: "시점",
    values: "값",
    channel: "채널 {index}",
    channels: "{layer}에서 합이 가장 큰 채널",
    channels_scale: "모든 채널에 같은 눈금을 씁니다. 가장 진한 색: {limit} 이상.",
    opacity: "사진 위 히트맵의 불투명도",
    picture_only: "사진",
    map_only: "히트맵",
    at_layer: "{layer} 층",
    custom_rules: "직접 정한 규칙",

    text_of: "낱말마다 {claim}에 대한 관련성을 칠한 글",
    delete: "낱말 지우기: {word}",
    tokens: "모델이 받은 토큰 ({count}개)",
    apart: "글에 속하지 않음",
    special: "그중 글에 속하지 않는 토큰",

    score: "{claim}의 점수",
    sum: "관련성 점수의 합",
    balance: "점수가 간 곳",
    sum_layer: "{layer} 층 관련성 점수의 합",
    not_passed: "신경망 안에 남음",
    little_arrived:
      "점수가 입력까지는 거의 도달하지 않습니다(나머지는 대개 편향에 남습니다). 히트맵은 합이 아니라 비율로 읽으십시오.",
    all_arrived: "네 자리 숫자로 보는 한, 점수가 모두 입력에 도달했습니다.",
    no_split: "이 방법은 점수를 나누어 주지 않으므로, 합이 점수와 같을 필요가 없습니다.",
    to_baseline: "이 방법의 합은 점수에서 기준 입력의 점수를 뺀 값이 됩니다.",
    where: "어디에 남았습니까?",
    small: "더 작은 몫들",
    bias: "편향",
    stabiliser: "안정화 항",
    "empty denominator": "빈 분모",
    constant: "상수",
    "initial state": "초기 상태",
    "value zero": "값이 0인 출력",
    softmax: "softmax",
    rounding: "반올림",
    rule: "규칙",
    other: "그 밖",
    why_arrived: "입력까지 나누어진 몫입니다. 히트맵의 관련성 점수를 모두 더한 값입니다.",
    why_arrived_layer: "이 층의 출력에 도달한 몫입니다. 모든 채널의 관련성 점수를 더한 값입니다.",
    why_bias: "편향과 배치 정규화의 이동 값은 입력과 상관없이 점수에 더해지므로, 그 몫을 그대로 가집니다.",
    why_stabiliser: "분모가 0에 가까워지지 않게 하는 작은 수(엡실론)가 작은 몫을 가져갑니다.",
    "why_empty denominator": "관련성을 받았지만, 규칙이 나누어 주려는 부호의 기여가 하나도 없는 뉴런이 있습니다.",
    why_constant: "클래스 토큰이나 패딩처럼 신호 옆에 있는 상수의 몫은 어떤 입력의 것도 아닙니다.",
    "why_initial state": "순환층은 모델의 입력이 아닌 상태에서 시작하며, 그 상태가 자기 몫을 가집니다.",
    "why_value zero": "정확히 0인 출력에 관련성이 왔습니다. 그 값을 만든 입력이 없어 나누어 줄 곳이 없습니다.",
    why_softmax: "AttnLRP의 softmax 규칙에는 자체 항이 있어, 받은 것보다 많거나 적게 넘겨줍니다.",
    why_rounding: "컴퓨터의 수는 자릿수가 한정되어 있어, 그 때문에 사라지는 몫입니다.",
    why_rule: "선택한 규칙이 받은 관련성을 모두 넘겨주지는 않습니다.",
    why_other: "따로 세지 않는 이유로, 어떤 연산이 받은 것과 다른 양을 넘겨주었습니다.",
    why_not_passed: "신경망 자체도 점수에 기여합니다. 예를 들어 편향은 입력을 보지 않습니다.",
    why_small: "가장 큰 몫의 천분의 일보다 작은 몫을 모두 더한 값입니다.",

    operations: "연산과 규칙",
    operations_count: "입력에서 점수까지 연산 {count}개",
    operation: "연산",
    rule_used: "규칙",
    received: "받은 양",
    passed: "넘겨준 양",
    lost: "남은 양",
    loading: "계산하고 있습니다 …",
    again: "다시 시도",
    failed: "실패했습니다: {error}",
    notes: "참고",
    download: "내려받기",
    png: "그림 (PNG)",
    svg: "벡터 그림 (SVG)",
    html: "웹 페이지 (HTML)",
    npz: "수치 (NPZ)",
    csv: "표 (CSV)",
    json: "수치 (JSON)",
    scores: "클래스",
    scores_hint: "클래스를 고르면 그에 대한 찬성 근거와 반대 근거가 보입니다.",
    row: "행",
    column: "열",
    relevance: "관련성",
    word: "낱말",
  },
};

let current = "en";

/** Speaks `language`, "en" or "ko", from now on. */
export function speak(language) {
  if (!(language in WORDS)) throw new Error(`The viewer speaks ${Object.keys(WORDS).join(" and ")}, not ${language}.`);
  current = language;
}

/** The language that is spoken. */
export function spoken() {
  return current;
}

/** The viewer's words for `key` in the current language, `{name}` replaced by `values.name`. */
export function say(key, values = {}) {
  if (!(key in WORDS[current])) throw new Error(`The viewer has no words for ${key}.`);
  return WORDS[current][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Whether there are words for `key`. */
export function known(key) {
  return Object.hasOwn(WORDS[current], key);
}

/** Four significant digits, with a sign and a real minus. */
export function number(value) {
  return value === 0 ? "0" : `${value < 0 ? "\u2212" : "+"}${size(Math.abs(value))}`;
}

/** Four significant digits of a value that is not negative, without a sign. */
export function size(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const [digits, power] = value.toExponential(3).split("e").map(Number);
  if (power < -4 || power >= 6) return `${digits}e${power < 0 ? "\u2212" : ""}${Math.abs(power)}`;
  return String(Number(value.toPrecision(4)));
}

/** Signed figures for a column, all with as many decimals as the largest has in four digits. */
export function column(values) {
  const largest = Math.max(...values.map(Math.abs), 1e-4);
  const decimals = Math.max(0, Math.min(8, 3 - Math.floor(Math.log10(largest))));
  return values.map((value) => {
    const digits = Math.abs(value).toFixed(decimals);
    return Number(digits) === 0 ? digits : `${value < 0 ? "\u2212" : "+"}${digits}`;
  });
}

/** A share from 0 to 1 in per cent. */
export function percent(share) {
  const hundredths = 100 * share;
  if (hundredths > 0 && hundredths < 0.05) return "< 0.1%";
  if (hundredths < 100 && hundredths >= 99.95) return "> 99.9%";
  return `${hundredths.toFixed(1)}%`;
}

/** What positive relevance of a sheet speaks for. */
export function claimOf(sheet) {
  return sheet.target?.name ?? (sheet.claim && sheet.claim !== "the score" ? sheet.claim : say("the_score"));
}

/** What a relevance says, in words: evidence for, against, neither. */
export function meaning(sheet, value) {
  const claim = claimOf(sheet);
  if (sheet.signed === false) return value === 0 ? say("no_reaction") : say("reacts", { claim });
  return value === 0 ? say("neutral") : say(value > 0 ? "for" : "against", { claim });
}
