"""The papers' tasks, each a declarative entry. Formats follow GPT-3's appendix G where it shows
one; the data sets' own records and those of common re-publications are both read.

Must not import jax.
"""

import re
from collections.abc import Iterator

from gpt_jax.evaluate import generated
from gpt_jax.evaluate.detokenize import detokenize_ptb
from gpt_jax.evaluate.tasks import Item, Record, Task

GPT3 = "Brown et al. 2020"
_WORDS = (
    "a about after again all also am an and any are as at back be because been before being but by "
    "can could did do does down even for from get go had has have he her here him his how i if in "
    "into is it its just know like me more much my no not now of off on one only or other our out "
    "over said she should so some such than that the their them then there these they this those "
    "to too up us very was we were what when where which while who why will with would you "
    "your"
)
STOP_WORDS = tuple(_WORDS.split())
"""Our list: GPT-2's paper (section 3.3) filters stop words and does not print its own."""


def _lambada(record: Record) -> Iterator[Item]:
    if "continuation" in record:
        yield Item(record["context"], (" " + record["continuation"].strip(),))
    else:
        context, _, word = record.get("text", record.get("passage", "")).strip().rpartition(" ")
        yield Item(context, (" " + word,))


def _lambada_blank(record: Record) -> Iterator[Item]:
    for item in _lambada(record):
        yield Item(f"{item.context} ____. ->", item.choices)


def _hellaswag(record: Record) -> Iterator[Item]:
    endings = tuple(" " + ending.strip() for ending in record["endings"])
    context = (record["ctx"] if "ctx" in record else record["context"]).strip()
    yield Item(f"{record['activity_label']}: {context}", endings, int(record["label"]))


def _piqa(record: Record) -> Iterator[Item]:
    if "query" in record:
        question, choices, gold = record["query"].strip(), record["choices"], record["gold"]
    else:
        question, gold = f"Question: {record['goal'].strip()}", int(record["label"])
        choices = [record["sol1"], record["sol2"]]
    yield Item(f"{question}\nAnswer:", tuple(" " + c.strip() for c in choices), gold)


def _copa(record: Record) -> Iterator[Item]:
    if "query" in record:
        yield Item(record["query"], tuple(" " + c for c in record["choices"]), record["gold"])
        return
    word = {"cause": "because", "effect": "therefore"}.get(record["question"], record["question"])
    choices = [record["choice1"], record["choice2"]]
    premise = record["premise"].strip().rstrip(".")
    endings = tuple(f" {c[:1].lower()}{c[1:]}" for c in choices)
    yield Item(f"{premise}, {word}", endings, int(record["label"]))


def _wsc273(record: Record) -> Iterator[Item]:
    if "context_options" in record:
        contexts, rest = record["context_options"], record["continuation"]
    elif "pronoun_start" in record:  # TFDS
        text, options = record["text"], [record[f"option{i}_normalized"] for i in (1, 2)]
        contexts = [text[: record["pronoun_start"]] + option for option in options]
        rest = text[record["pronoun_end"] :]
    else:  # the published form: text with the place of the pronoun
        text, begin = record["text"], record["pronoun_loc"]
        rest = text[begin + len(record["pronoun"]) :]
        contexts = [text[:begin] + option for option in record["options"]]
    gold = int(record.get("gold", record.get("label", 0)))
    yield Item("", (" " + rest.strip(),), gold, contexts=tuple(contexts))


def _winogrande(record: Record) -> Iterator[Item]:
    before, _, rest = record["sentence"].partition("_")
    contexts = tuple(before + record[option] for option in ("option1", "option2"))
    gold = int(record["answer"]) - 1 if "answer" in record else record["label"]  # TFDS: 0 or 1
    yield Item("", (rest if rest[:1] == " " else " " + rest,), gold, contexts)


def _cbt(record: Record) -> Iterator[Item]:
    """The probability of a choice and of the rest of the sentence after it (GPT-2, section 3.2)."""
    story = detokenize_ptb(" ".join(record["sentences"])).strip()
    before, _, rest = record["question"].partition("XXXXX")
    context = f"{story} {detokenize_ptb(before)}".strip()
    endings = tuple(" " + detokenize_ptb(option + rest).strip() for option in record["options"])
    yield Item(context, endings, record["options"].index(record["answer"]))


def _storycloze(record: Record) -> Iterator[Item]:
    def field(*names: str) -> str:
        return str(next(record[name] for name in names if name in record)).strip()

    if "endings" in record:  # TFDS
        endings = tuple(" " + ending.strip() for ending in record["endings"])
        yield Item(field("context"), endings, record["label"] - 1)
        return
    story = [field(f"InputSentence{i}", f"input_sentence_{i}") for i in range(1, 5)]
    quiz = [
        field(f"RandomFifthSentenceQuiz{i}", f"sentence_quiz{i}", f"text_right_ending_{i}")
        for i in (1, 2)
    ]
    gold = int(field("AnswerRightEnding", "answer_right_ending")) - 1
    yield Item(" ".join(story), tuple(" " + ending for ending in quiz), gold)


def _arc(record: Record) -> Iterator[Item]:
    question, choices = record["question"], record.get("choices")
    if isinstance(question, dict):
        choices, question = question["choices"], question["stem"]
    elif "question_stem" in record:
        question = record["question_stem"]
    texts: list[str]
    if isinstance(choices, dict):
        texts, labels = choices["text"], choices.get("label", [])
    else:
        assert choices is not None
        texts, labels = [c["text"] for c in choices], [c["label"] for c in choices]
    answer = record["answerKey"]
    gold = answer if isinstance(answer, int) else list(labels).index(answer)
    yield Item(f"Question: {question}\nAnswer:", tuple(" " + t for t in texts), gold)


def _openbookqa(record: Record) -> Iterator[Item]:
    if isinstance(record["question"], dict) and "choice_A" in record["question"]:  # TFDS
        question = record["question"]
        texts = tuple(f" {question[f'choice_{letter}']}" for letter in "ABCD")
        gold = record["answerKey"]
        gold = gold if isinstance(gold, int) else "ABCD".index(gold)
        yield Item(f"Question: {question['stem']}\nAnswer:", texts, gold)
    else:
        yield from _arc({"question": record.get("question_stem", ""), **record})


def _boolq(record: Record) -> Iterator[Item]:
    label = record["answer"] if "answer" in record else record["label"]
    is_true = label in (True, 1, "true", "True", "yes")
    passage, question = record["passage"].strip(), record["question"].strip().rstrip("?")
    yield Item(f"{passage}\nquestion: {question}?\nanswer:", (" no", " yes"), int(is_true))


def _rte(record: Record) -> Iterator[Item]:
    context = f"{record['premise']}\nquestion: {record['hypothesis']} True or False?\nanswer:"
    yield Item(context, (" True", " False"), int(record["label"] not in ("entailment", 0)))


def _race(record: Record) -> Iterator[Item]:
    """A file or record holds an article with one question or several."""
    questions = record.get("questions", record.get("question"))
    options, answers = record["options"], record.get("answers", record.get("answer"))
    if isinstance(questions, str):
        questions, options, answers = [questions], [options], [answers]
    for question, choices, answer in zip(questions, options, answers, strict=True):
        gold = answer if isinstance(answer, int) else "ABCD".index(answer)
        context = f"Article: {record['article'].strip()}\n\nQuestion: {question.strip()}\nAnswer:"
        yield Item(context, tuple(" " + c.strip() for c in choices), gold)


def _summary(record: Record) -> Iterator[Item]:
    article = str(record.get("article", record.get("document"))).strip()
    target = str(record.get("highlights", record.get("summary"))).strip()
    yield Item(f"{article}\nTL;DR:", answers=(target,))


def _question(record: Record) -> Iterator[Item]:
    """Closed-book: TriviaQA, Natural Questions, WebQuestions in their common forms."""
    answers = record.get("answers", record.get("answer", record.get("Answer")))
    if isinstance(answers, dict):
        answers = [answers.get("value", ""), *answers.get("aliases", [])]
    answers = [answers] if isinstance(answers, str) else answers
    question = record.get("question", record.get("Question"))
    yield Item(f"Q: {question}\n\nA:", answers=tuple(a for a in answers if a))


def _news(record: Record) -> Iterator[Item]:
    title, subtitle = record["title"].strip(), record.get("subtitle", "").strip()
    yield Item(f"Title: {title}\nSubtitle: {subtitle}\nArticle:", answers=(record["article"],))


def _arithmetic(record: Record) -> Iterator[Item]:
    """The whole answer: it is followed by a line break."""
    yield Item(record["context"].strip("\n"), (record["completion"].rstrip() + "\n",))


NAMES = {"en": "English", "de": "German", "fr": "French", "ro": "Romanian"}


def _translation(source: str, target: str):
    def read(record: Record) -> Iterator[Item]:
        pair = record.get("translation", record)
        question = f"Q: What is the {NAMES[target]} translation of {pair[source]}"
        yield Item(f"{question}\nA:", answers=(pair[target],))

    return read


def _translations() -> Iterator[Task]:
    for source, target in (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"), ("en", "ro")):
        read = _translation(source, target)
        form = "{" + ",".join(sorted((source, target), reverse=True)) + "}"
        other = "{" + ",".join(sorted((source, target))) + "}"
        files = [f"{stem}.{f}" for stem in ("test", "newstest2014") for f in (form, other)]
        files += [f"test_2016_flickr.{f}.gz" for f in (form, other)]
        training = tuple(f"train.{f}{end}" for f in (form, other) for end in ("", ".gz"))
        name = f"translate_{source}_{target}"
        files.append(f"{name}.jsonl")
        yield Task(
            name, tuple(files), read, training, kind="generate", metric="bleu", max_new_tokens=128,
            source=f"parallel text; prompt of {GPT3}, appendix G; sacreBLEU",
        )  # fmt: skip


ARC_NOTE = f"Clark et al. 2018; normalised as in {GPT3}, section 2.4"
TRIVIA = ("triviaqa.jsonl", "triviaqa.json")

_ENTRIES = [
    Task("lambada", ("lambada_openai.jsonl", "lambada_test.jsonl", "lambada.jsonl"), _lambada,
         kind="cloze", banned_words=STOP_WORDS, tfds=("lambada", "test", "train"),
         source="Paperno et al. 2016; OpenAI's variant of the test set"),
    Task("lambada_blank", ("lambada_openai.jsonl", "lambada_test.jsonl", "lambada.jsonl"),
         _lambada_blank, kind="cloze", banned_words=STOP_WORDS, tfds=("lambada", "test", "train"),
         source=f"LAMBADA as fill-in-the-blank: {GPT3}, section 3.1.2"),
    Task("hellaswag", ("hellaswag_val_full.txt.bz2", "hellaswag_val.jsonl"), _hellaswag,
         ("hellaswag_train.jsonl",), tfds=("hellaswag", "validation", "train"),
         source="Zellers et al. 2019, validation"),
    Task("piqa", ("piqa.jsonl", "piqa_valid.jsonl"), _piqa, ("piqa_train.jsonl",),
         tfds=("piqa", "validation", "train"), source="Bisk et al. 2020, validation"),
    Task("copa", ("copa.jsonl", "COPA/val.jsonl"), _copa, ("COPA/train.jsonl",),
         tfds=("super_glue/copa", "validation", "train"), source="Roemmele et al. 2011"),
    Task("wsc273", ("winograd_wsc.jsonl", "wsc273.json"), _wsc273, measure="raw",
         tfds=("wsc273", "test", "test"),
         source="Levesque et al. 2012; partial scoring of Trinh and Le 2018"),
    Task("winogrande", ("dev.jsonl", "winogrande_dev.jsonl"), _winogrande,
         ("train_xl.jsonl", "winogrande_train.jsonl"), measure="raw",
         tfds=("winogrande", "validation", "train_xl"),
         source="Sakaguchi et al. 2019, partial scoring"),
    Task("cbt_cn", ("cbtest_CN_test_2500ep.txt",), _cbt, ("cbtest_CN_train.txt",), measure="raw",
         source="Hill et al. 2015, common nouns; scored as in Radford et al. 2019"),
    Task("cbt_ne", ("cbtest_NE_test_2500ep.txt",), _cbt, ("cbtest_NE_train.txt",), measure="raw",
         source="Hill et al. 2015, named entities; scored as in Radford et al. 2019"),
    Task("storycloze", ("cloze_test_test__spring2016.csv", "storycloze.csv", "storycloze.jsonl"),
         _storycloze, ("cloze_test_val__spring2016.csv",),
         tfds=("story_cloze/2016", "test", "validation"), source="Mostafazadeh et al. 2016"),
    Task("arc_easy", ("ARC-Easy-Test.jsonl", "arc_easy.jsonl"), _arc, ("ARC-Easy-Train.jsonl",),
         measure="unconditional", answer_context="Answer:",
         tfds=("ai2_arc/ARC-Easy", "test", "train"), source=ARC_NOTE),
    Task("arc_challenge", ("ARC-Challenge-Test.jsonl", "arc_challenge.jsonl"), _arc,
         ("ARC-Challenge-Train.jsonl",), measure="unconditional", answer_context="Answer:",
         tfds=("ai2_arc/ARC-Challenge", "test", "train"), source=ARC_NOTE),
    Task("openbookqa", ("test_complete.jsonl", "openbookqa.jsonl"), _openbookqa,
         ("train_complete.jsonl",), measure="unconditional", answer_context="Answer:",
         tfds=("openbookqa", "test", "train"), source="Mihaylov et al. 2018"),
    Task("boolq", ("boolq.jsonl", "BoolQ/val.jsonl"), _boolq, ("BoolQ/train.jsonl",),
         measure="raw", tfds=("bool_q", "validation", "train"), source="Clark et al. 2019"),
    Task("rte", ("RTE/val.jsonl", "rte/val.jsonl"), _rte, ("RTE/train.jsonl", "rte/train.jsonl"),
         measure="raw", tfds=("super_glue/rte", "validation", "train"),
         source="SuperGLUE, Wang et al. 2019"),
    Task("race_high", ("RACE/test/high", "race_high.jsonl"), _race, ("RACE/train/high",),
         measure="unconditional", answer_context="Answer:", tfds=("race/high", "test", "train"),
         source="Lai et al. 2017"),
    Task("race_middle", ("RACE/test/middle", "race_middle.jsonl"), _race, ("RACE/train/middle",),
         measure="unconditional", answer_context="Answer:", tfds=("race/middle", "test", "train"),
         source="Lai et al. 2017"),
    Task("summarise", ("cnn_dailymail.jsonl", "summarise.jsonl"), _summary, kind="generate",
         metric="rouge", max_new_tokens=100, stop=(),
         source="CNN and Daily Mail; TL;DR: and 100 tokens of Radford et al. 2019, section 3.6"),
    Task("triviaqa", TRIVIA, _question, ("triviaqa_train.jsonl",), kind="generate",
         source=f"closed book, {GPT3}, section 3.2"),
    Task("naturalqs", ("naturalqs.jsonl", "NQ-open.dev.jsonl"), _question,
         ("NQ-open.train.jsonl",), kind="generate", source=f"closed book, {GPT3}, section 3.2"),
    Task("webqs", ("webqs.jsonl",), _question, ("webqs_train.jsonl",), kind="generate",
         source=f"closed book, {GPT3}, section 3.2"),
    Task("news", ("news.jsonl",), _news, kind="generate", metric="none", max_new_tokens=400,
         stop=("\n\nTitle:",), source=f"{GPT3}, section 3.9.4: nothing is scored, texts are kept"),
    *_translations(),
]  # fmt: skip


def _generated() -> Iterator[Task]:
    for name in generated.ARITHMETIC:
        yield Task(
            name, (f"{name}.jsonl.gz",), _arithmetic, kind="cloze", separator="\n",
            make=lambda seed, name=name: [  # type: ignore[misc]
                item for r in generated.arithmetic(name, seed) for item in _arithmetic(r)
            ],
            source=f"{GPT3}, section 3.9.1: 2,000 random items",
        )  # fmt: skip
    for kind in generated.SCRAMBLES:

        def read(record: Record, kind: str = kind) -> Iterator[Item]:
            word = record.get("word") or re.sub(r"\s", "", record["completion"])
            scrambled = generated.scramble(word, kind)
            yield Item(f"{scrambled} =", (f" {word}\n",))

        yield Task(
            f"scramble_{kind}", ("words.jsonl", "reversed_words.jsonl.gz"), read, kind="cloze",
            instruction=generated.INSTRUCTION, separator="",
            source=f"{GPT3}, section 3.9.2; words of a file",
        )  # fmt: skip


CATALOG = {task.name: task for task in [*_ENTRIES, *_generated()]}
"""Every task that we know, by name."""
