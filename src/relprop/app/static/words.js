/** The interface's words in English and Korean, and Korean for what the server says in English. */

export const LANGUAGES = [
  { code: "en", short: "EN", name: "English" },
  { code: "ko", short: "한국어", name: "한국어" },
];

const WORDS = {
  skip: ["Skip to the content", "본문으로 건너뛰기"],
  tabs: ["What to explain", "설명할 대상"],
  language: ["Language of the interface", "화면 언어"],
  "theme.label": ["Colours: {now}. Change to: {next}", "색상: {now}. 바꾸기: {next}"],
  "theme.system": ["as the system", "시스템 설정"],
  "theme.light": ["light", "밝게"],
  "theme.dark": ["dark", "어둡게"],
  "link.copy": ["Copy a link to this view", "이 화면의 링크 복사"],
  "link.copied": ["Link copied", "링크를 복사했습니다"],
  "link.address": ["The link is in the address bar", "링크는 주소창에 있습니다"],
  "foot.local": ["Everything is computed on this machine. Nothing you draw, upload or write leaves it.", "모든 계산은 이 컴퓨터에서 이루어집니다. 그린 것, 올린 것, 쓴 것은 밖으로 나가지 않습니다."],

  "tab.digit": ["Digit", "숫자"],
  "tab.photo": ["Photo", "사진"],
  "tab.review": ["Review", "리뷰"],
  "tab.series": ["Series", "수열"],
  "tab.compare": ["Compare", "비교"],

  network: ["Network", "신경망"],
  rules: ["Rules", "규칙"],
  method: ["Method", "방법"],
  layer: ["Relevance at", "관련성을 볼 층"],
  "layer.input": ["the input", "입력"],
  "layer.hint": ["Inside a layer, the map adds up all channels; the strongest ones follow one by one.", "층 안에서는 모든 채널을 더한 히트맵이 나오고, 가장 강한 채널이 하나씩 이어집니다."],
  scores: ["What the network says", "신경망의 판단"],
  undo: ["Undo", "되돌리기"],
  clear: ["Clear", "모두 지우기"],
  target: ["Explain another class", "다른 클래스 설명하기"],
  "target.example": ["a name or a number", "이름 또는 번호"],
  "target.follow": ["Follow the decision", "판단을 따라가기"],
  "target.decision": ["the decision", "판단한 클래스"],
  "target.explain": ["Explain", "설명할 클래스"],
  "target.unknown": ["There is no class “{name}”. Write a part of its name, or its number.", "“{name}” 클래스는 없습니다. 이름의 일부나 번호를 쓰십시오."],
  "evidence.of": ["For and against {name}", "{name}에 대한 찬성·반대 근거"],

  "digit.title": ["Draw a digit", "숫자를 그려 보십시오"],
  "digit.lede": ["The network reads along. Red speaks for its decision, blue against it.", "그리는 동안 신경망이 읽습니다. 빨간 곳은 판단을 지지하고, 파란 곳은 반대합니다."],
  "digit.draw": ["Your digit", "내가 그린 숫자"],
  "digit.how": ["With mouse, pen, finger or arrow keys", "마우스, 펜, 손가락, 화살표 키로"],
  "digit.pad": ["Drawing pad", "그리기 판"],
  "digit.pad.help": ["Arrow keys move the pen, the space bar sets it down and lifts it, Backspace takes back a stroke, Delete clears the pad.", "화살표 키로 펜을 옮기고, 스페이스 바로 펜을 대거나 뗍니다. 백스페이스는 획 하나를 되돌리고, Delete는 모두 지웁니다."],
  "digit.pad.hint": ["Draw here", "여기에 그리십시오"],
  "digit.pad.example": ["An example: draw your own", "예시입니다. 직접 그려 보십시오"],
  "digit.thickness": ["Thickness of the pen", "펜 굵기"],
  "digit.thin": ["Thin", "얇게"],
  "digit.medium": ["Medium", "보통"],
  "digit.thick": ["Thick", "굵게"],
  "digit.under": ["Heatmap under the ink", "획 아래에 히트맵"],
  "digit.seen": ["What the network sees: 28 × 28", "신경망이 보는 것: 28 × 28"],
  "digit.waiting": ["The heatmap appears as soon as you draw.", "그리기 시작하면 히트맵이 나타납니다."],
  "digit.samples": ["Or take one from the test set", "시험 자료에서 고르기"],
  "digit.sample": ["A handwritten {label}", "손으로 쓴 {label}"],
  "digit.others": ["Other hands", "다른 글씨"],
  "digit.said": ["The network reads {name}. The map explains {explained}.", "신경망은 {name}(으)로 읽습니다. 히트맵은 {explained}을(를) 설명합니다."],

  "photo.title": ["Look at a photo", "사진을 살펴보십시오"],
  "photo.lede": ["What in the picture spoke for a class, and what against it.", "사진의 어디가 그 클래스를 지지하고, 어디가 반대했는지 봅니다."],
  "photo.picture": ["Picture", "사진"],
  "photo.choose": ["Choose a picture", "사진 고르기"],
  "photo.drop": ["or drop or paste one anywhere here", "또는 끌어 놓거나 붙여 넣기"],
  "photo.samples": ["Sample pictures", "예시 사진"],
  "photo.square": ["The network sees the middle square.", "신경망은 가운데 정사각형만 봅니다."],
  "photo.opacity": ["Heatmap over the picture", "사진 위 히트맵"],
  "photo.how": ["How it is explained", "설명 방법"],
  "photo.waiting": ["Choose a picture, and its heatmap appears here.", "사진을 고르면 히트맵이 여기에 나타납니다."],
  "photo.said": ["The network sees {name}. The map explains {explained}.", "신경망은 {name}(으)로 봅니다. 히트맵은 {explained}을(를) 설명합니다."],
  "picture.cat": ["Cat", "고양이"],
  "picture.coffee": ["Coffee", "커피"],

  "review.title": ["Write a review", "리뷰를 써 보십시오"],
  "review.lede": ["Every word is painted as you type. Point at a word and delete it: what do the networks say without it?", "쓰는 동안 낱말마다 색이 칠해집니다. 낱말을 하나 지워 보십시오. 그 낱말이 없으면 신경망은 무엇이라고 합니까?"],
  "review.text": ["Your review, in English or Korean", "영어 또는 한국어 리뷰"],
  "review.placeholder": ["Not bad at all …", "기대보다 재미있었습니다 …"],
  "review.language": ["Language", "언어"],
  "review.auto": ["by the script", "글자를 보고"],
  "review.samples": ["Sample reviews", "예시 리뷰"],
  "review.without": ["Without", "지운 낱말"],
  "review.change": ["Score of “{name}”, before and after", "“{name}” 점수, 지우기 전과 후"],
  "review.restore": ["Bring all back", "모두 되살리기"],
  "review.said": ["{model}: {name}.", "{model}: {name}."],

  "series.title": ["Numbers over time", "시간에 따른 수"],
  "series.lede": ["Paste the values of one sample: what spoke for the model’s score, and what against it.", "표본 하나의 값을 붙여 넣으십시오. 무엇이 모델의 점수를 지지하고 무엇이 반대했는지 봅니다."],
  "series.numbers": ["Values, one row for each channel", "값, 채널마다 한 줄"],
  "series.hint": ["Apart by commas, spaces or tabs.", "쉼표, 빈칸, 탭으로 나눕니다."],
  "series.shape": ["The model reads {shape} values, apart by commas, spaces or tabs.", "이 모델은 {shape}개의 값을 읽습니다. 쉼표, 빈칸, 탭으로 나눕니다."],
  "series.wrong": ["Line {line}: “{text}” is not a number.", "{line}번째 줄의 “{text}”은(는) 수가 아닙니다."],
  "series.waiting": ["Paste numbers, and their relevance appears here.", "수를 붙여 넣으면 관련성 점수가 여기에 나타납니다."],

  "compare.title": ["Compare explanations", "설명 비교하기"],
  "compare.lede": ["One input, one forward pass, any methods and rules beside each other.", "하나의 입력, 한 번의 순전파로 여러 방법과 규칙을 나란히 봅니다."],
  "compare.input": ["Input", "입력"],
  "kind.digit": ["Digit", "숫자"],
  "kind.picture": ["Photo", "사진"],
  "kind.text": ["Review", "리뷰"],
  "compare.drawn": ["Your digit", "내가 그린 숫자"],
  "compare.uploaded": ["Your picture", "내가 올린 사진"],
  "compare.adding": ["Add an explanation", "설명 더하기"],
  "compare.add": ["Add", "더하기"],
  "compare.full": ["{most} explanations at a time; take one away first.", "한 번에 {most}개까지입니다. 먼저 하나를 빼십시오."],
  "compare.scale": ["Colour scale", "색 눈금"],
  "compare.own": ["each its own", "각자"],
  "compare.shared": ["the same for all", "모두 같게"],
  "compare.earlier": ["Move forward", "앞으로 옮기기"],
  "compare.later": ["Move back", "뒤로 옮기기"],
  "compare.remove": ["Take away", "빼기"],
  "compare.score": ["Score of {name}: {score}", "{name}의 점수: {score}"],
  "compare.column.name": ["Explanation", "설명"],
  "compare.column.total": ["Sum of relevance", "관련성 점수의 합"],
  "compare.column.lost": ["Score minus sum", "점수와 합의 차이"],
  "compare.column.limit": ["Full colour", "가장 진한 색"],
  "compare.said": ["{count} explanations of {name}.", "{name}에 대한 설명 {count}개."],

  "rules.auto": ["automatic", "자동"],
  "rules.own": ["rules of your own …", "직접 정한 규칙 …"],
  "rules.custom": ["custom rules", "직접 정한 규칙"],
  "rules.order": ["The first row that fits an operation decides. A row selects by kind (conv, linear, …) or by module name, as features.*", "연산에 맞는 첫 줄이 규칙을 정합니다. 종류(conv, linear, …)나 모듈 이름(예: features.*)으로 고릅니다."],
  "rules.add": ["Add a row", "줄 더하기"],
  "rules.where": ["Row {row}: where", "{row}번째 줄: 어디에"],
  "rules.which": ["Row {row}: which rule", "{row}번째 줄: 어떤 규칙을"],
  "rules.up": ["Move up", "위로"],
  "rules.down": ["Move down", "아래로"],
  "rules.remove": ["Take the row away", "줄 빼기"],

  "method.lrp": ["LRP", "LRP"],
  "method.gradient": ["Gradient, squared", "기울기의 제곱"],
  "method.gradient_x_input": ["Gradient × input", "기울기 × 입력"],
  "method.integrated_gradients": ["Integrated gradients", "적분 기울기"],
  "method.smoothgrad": ["SmoothGrad", "SmoothGrad"],
  "method.guided_backprop": ["Guided backprop", "유도 역전파"],
  "method.deconvnet": ["DeconvNet", "DeconvNet"],
  "method.occlusion": ["Occlusion", "가리기"],
  "method.lime": ["LIME", "LIME"],
  "method.grad_cam": ["Grad-CAM", "Grad-CAM"],
  "method.deeplift": ["DeepLIFT", "DeepLIFT"],
  "method.kernel_shap": ["Kernel SHAP", "Kernel SHAP"],

  "model.mnist-cnn": ["Convolutional network", "합성곱 신경망"],
  "model.mnist-mlp": ["Fully connected network", "완전 연결 신경망"],
  "model.mnist-vit": ["Vision Transformer", "비전 트랜스포머"],
  "model.efficientnet-lite0": ["EfficientNet-Lite0", "EfficientNet-Lite0"],
  "model.reviews-en": ["LSTM", "LSTM"],
  "model.reviews-en-transformer": ["Transformer", "트랜스포머"],
  "model.reviews-ko": ["LSTM on morphemes", "형태소 LSTM"],

  "error.silent": ["The server does not answer. Is relprop serve still running?", "서버가 응답하지 않습니다. relprop serve가 실행 중인지 확인하십시오."],
  "error.status": ["The server refused this (status {status}).", "서버가 요청을 거절했습니다(상태 {status})."],
  "error.ink": ["The drawing in this link can’t be read.", "링크에 담긴 그림을 읽을 수 없습니다."],
  "error.of": ["{file}: {why}", "{file}: {why}"],
  "error.file": ["This file has more than {megabytes} MB, the most that is read.", "파일이 {megabytes}MB보다 큽니다. 더 작은 파일을 고르십시오."],
};

/** Korean alone: for what the server says in English. */
const KOREAN = {
  "label.positive": "긍정",
  "label.negative": "부정",
  "error.empty": "빈 파일입니다.",
  "error.too_large": "파일이나 사진이 너무 큽니다. 더 작은 것을 고르십시오.",
  "error.too_narrow": "사진이 너무 좁고 길어서 모델이 볼 수 없습니다. 일부를 잘라 쓰십시오.",
  "error.no_picture": "읽을 수 있는 사진 파일이 아닙니다. PNG, JPEG, WebP 같은 사진을 고르십시오.",
  "error.damaged": "사진 파일이 손상되었거나 잘렸습니다. 다시 받거나 저장하십시오.",
  "error.no_such_picture": "서버에 이 사진이 더 이상 없습니다. 사진을 다시 고르십시오.",
  "error.missing_extra": "이 모델에 필요한 패키지가 설치되어 있지 않습니다.",
  "error.no_such_model": "서버에 이 모델이 없습니다.",
  "error.other_origin": "다른 사이트에서 온 요청에는 답하지 않습니다.",
  "error.busy": "지금은 서버가 바쁩니다. 잠시 뒤에 다시 시도하십시오.",
  "error.failed": "계산하지 못했습니다. 자세한 내용은 서버를 실행한 터미널에 있습니다.",
  "error.non_finite": "값에 NaN이나 무한대가 있어 설명할 수 없습니다.",
  "preset.auto": "모델의 연산을 보고 정합니다: 합성곱이면 epsilon-plus-flat, 어텐션이면 attn-lrp, 그 밖에는 epsilon",
  "preset.epsilon": "모든 곳에 Epsilon(1e-6)",
  "preset.epsilon-plus": "합성곱에 z+, 선형 층에 epsilon",
  "preset.epsilon-plus-flat": "epsilon-plus와 같고, 첫 층에 flat 규칙",
  "preset.epsilon-gamma-box": "첫 층에 z-box, 합성곱에 gamma 0.25, 선형 층에 epsilon",
  "preset.epsilon-alpha2-beta1": "합성곱에 alpha 2 beta 1, 선형 층에 epsilon",
  "preset.epsilon-alpha2-beta1-flat": "epsilon-alpha2-beta1과 같고, 첫 층에 flat 규칙",
  "preset.deep-taylor": "은닉층에 z+, 첫 층에는 입력 범위가 있으면 z-box, 없으면 w^2",
  "preset.gamma": "모든 곳에 Gamma(0.25)",
  "preset.w-square": "모든 곳에 w^2",
  "preset.attn-lrp": "AttnLRP: 선형 층에 epsilon, 어텐션 가중치와 값에 절반씩, softmax에 테일러 규칙",
  "preset.attn-lrp-vit": "비전 트랜스포머용 AttnLRP: 합성곱에 gamma 0.25, 선형 층에 gamma 0.05",
  "preset.cp-lrp": "CP-LRP: 선형 층에 epsilon, 어텐션 가중치와 통계량과 게이트는 상수",
  "selector.first": "입력에서 가장 가까운 선형 연산",
  "selector.last": "점수에서 가장 가까운 선형 연산",
  "selector.conv": "합성곱",
  "selector.linear": "선형 층과 순환 층",
  "selector.recurrent": "순환 층: LSTM, GRU, RNN",
  "selector.affine": "합성곱, 선형 층, 순환 층",
  "selector.sum": "여러 값의 합: 잔차 연결, 풀링",
  "selector.normaliser": "층 정규화 등",
  "selector.gate": "게이트와 신호의 곱",
  "selector.gated": "활성값과 신호의 곱",
  "selector.attention": "어텐션 가중치와 값의 곱",
  "missing.reviews-ko": "한국어 리뷰에는 형태소 분석기가 필요합니다. pip install \"relprop[korean]\"을 실행하십시오.",
  "missing.efficientnet-lite0": "사진에는 ImageNet 신경망이 필요합니다. pip install \"relprop[photos]\"를 실행하십시오.",
};

let spoken = 0;

/** "en" or "ko". */
export const language = () => LANGUAGES[spoken].code;

export function setLanguage(code) {
  spoken = Math.max(0, LANGUAGES.findIndex((one) => one.code === code));
}

/** The words of a key, with {values} filled in. */
export function t(key, values = {}) {
  return filled(WORDS[key]?.[spoken] ?? key, values);
}

/** The words of a key that may be unknown: `fallback`, the server's own words, where there are none. */
export function translate(key, fallback, values = {}) {
  if (key in WORDS) return t(key, values);
  return language() === "ko" && key in KOREAN ? filled(KOREAN[key], values) : fallback;
}

/** A text with its {values}; Korean particles written as 을(를), 은(는), (으)로 take the form that fits the word before. */
function filled(text, values) {
  const whole = text.replace(/\{(\w+)\}/g, (braces, name) => values[name] ?? braces);
  return whole.replace(/(\S)([”"]?)(을\(를\)|은\(는\)|\(으\)로)/g, (_, last, quote, particle) => {
    const end = finalOf(last);
    const form = { "을(를)": end ? "을" : "를", "은(는)": end ? "은" : "는", "(으)로": end && end !== "ㄹ" ? "으로" : "로" }[particle];
    return last + quote + form;
  });
}

/** The final consonant that a letter or digit is read with in Korean: "" for none, "ㄹ" where it is that, else "x". */
function finalOf(letter) {
  const place = letter.charCodeAt(0) - 0xac00;
  if (place >= 0 && place < 11172) return place % 28 === 0 ? "" : place % 28 === 8 ? "ㄹ" : "x";
  if (/\d/.test(letter)) return { 0: "x", 1: "ㄹ", 3: "x", 6: "x", 7: "ㄹ", 8: "ㄹ" }[letter] ?? "";
  return /[lr]/i.test(letter) ? "ㄹ" : /[mnbkpt]/i.test(letter) ? "x" : "";
}

/** Whether a model is the reader's own, not one that ships with relprop. */
export const isOwn = (model) => !(`model.${model.name}` in WORDS);
