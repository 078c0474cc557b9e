"""The papers' tasks, each a declarative entry: files, forms, how it is scored, whose convention.

A choice task's headline measure is what lm-evaluation-harness calls acc_norm (per_character) where
it reports that, and its acc (raw) otherwise. Prompts follow GPT-3's appendix G where it shows one,
and lm-evaluation-harness otherwise; this package's README.md lists where the two differ. Must not
import jax.
"""

import functools
from collections.abc import Iterator

from gpt_jax.evaluate import generated
from gpt_jax.evaluate.formats import completions, files, questions, suites, written
from gpt_jax.evaluate.tasks import Item, Task

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


def _translations() -> Iterator[Task]:
    for source, target in (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"), ("en", "ro")):
        form = "{" + ",".join(sorted((source, target), reverse=True)) + "}"
        other = "{" + ",".join(sorted((source, target))) + "}"
        names = [f"{stem}.{f}" for stem in ("test", "newstest2014") for f in (form, other)]
        names += [f"test_2016_flickr.{f}.gz" for f in (form, other)]
        yield Task(
            f"translate_{source}_{target}",
            tuple(names),
            written.translation_forms(source, target),
            tuple(f"train.{f}{end}" for f in (form, other) for end in ("", ".gz")),
            kind="generate",
            metric="bleu",
            max_new_tokens=128,
            source=f"parallel text; prompt of {GPT3}, appendix G; sacreBLEU",
        )


ARC_NOTE = "Clark et al. 2018"
LAMBADA_FILES = ("lambada_openai.jsonl", "lambada_test.jsonl", "lambada_test_plain_text.txt")
LAMBADA_TFDS = ("lambada", "test", "train")

_ENTRIES = [
    Task("lambada", (*LAMBADA_FILES, "lambada.jsonl"), completions.LAMBADA,
         parsers={".txt": files.passages}, kind="cloze", banned_words=STOP_WORDS,
         tfds=LAMBADA_TFDS, source="Paperno et al. 2016; OpenAI's variant of the test set"),
    Task("lambada_blank", (*LAMBADA_FILES, "lambada.jsonl"), completions.LAMBADA_BLANK,
         parsers={".txt": files.passages}, kind="cloze", banned_words=STOP_WORDS,
         tfds=LAMBADA_TFDS, source=f"LAMBADA as fill-in-the-blank: {GPT3}, section 3.1.2"),
    Task("hellaswag", ("hellaswag_val_full.txt.bz2", "hellaswag_val.jsonl"), completions.HELLASWAG,
         ("hellaswag_train.jsonl",), parsers={".txt": files.hellaswag_lines},
         measure="per_character", tfds=("hellaswag", "validation", "train"),
         source="Zellers et al. 2019, validation"),
    Task("piqa", ("piqa.jsonl", "piqa_valid.jsonl", "physicaliqa-train-dev/dev.jsonl"),
         questions.PIQA, ("piqa_train.jsonl", "physicaliqa-train-dev/train.jsonl"),
         measure="per_character", tfds=("piqa", "validation", "train"),
         source="Bisk et al. 2020, validation"),
    Task("copa", ("copa.jsonl", "COPA/val.jsonl", "copa-test.xml"), completions.COPA,
         ("COPA/train.jsonl", "copa-dev.xml"), parsers={".xml": files.copa_xml}, measure="raw",
         tfds=("super_glue/copa", "validation", "train"),
         source="Roemmele et al. 2011"),
    Task("wsc273", ("winograd_wsc.jsonl", "WSCollection.xml"), completions.WSC273,
         parsers={".xml": files.winograd_xml}, measure="raw",
         tfds=("wsc273", "test", "test"),
         source="Levesque et al. 2012; partial scoring of Trinh and Le 2018"),
    Task("winogrande", ("winogrande_1.1/dev.jsonl", "winogrande_dev.jsonl", "dev.jsonl"),
         completions.WINOGRANDE, ("train_xl.jsonl", "winogrande_train.jsonl"), measure="raw",
         tfds=("winogrande", "validation", "train_xl"),
         source="Sakaguchi et al. 2019, partial scoring"),
    *(Task(f"cbt_{kind.lower()}", (f"cbtest_{kind}_test_2500ep.txt",), completions.CBT,
           (f"cbtest_{kind}_train.txt",), parsers={".txt": files.cbt_lines}, measure="raw",
           source=f"Hill et al. 2015, {what}; scored as in Radford et al. 2019")
      for kind, what in (("CN", "common nouns"), ("NE", "named entities"))),
    Task("storycloze", ("cloze_test_test__spring2016.csv", "storycloze.csv", "storycloze.jsonl"),
         completions.STORYCLOZE, ("cloze_test_val__spring2016.csv",), measure="raw",
         tfds=("story_cloze/2016", "test", "validation"), source="Mostafazadeh et al. 2016"),
    Task("arc_easy", ("ARC-Easy-Test.jsonl", "arc_easy.jsonl"), questions.ARC,
         ("ARC-Easy-Train.jsonl",), measure="per_character", answer_context="Answer:",
         tfds=("ai2_arc/ARC-Easy", "test", "train"), source=ARC_NOTE),
    Task("arc_challenge", ("ARC-Challenge-Test.jsonl", "arc_challenge.jsonl"), questions.ARC,
         ("ARC-Challenge-Train.jsonl",), measure="per_character", answer_context="Answer:",
         tfds=("ai2_arc/ARC-Challenge", "test", "train"), source=ARC_NOTE),
    Task("openbookqa", ("test_complete.jsonl", "openbookqa.jsonl", "openbook_qa.jsonl"),
         questions.OPENBOOKQA, ("train_complete.jsonl",), measure="per_character",
         answer_context="Answer:", tfds=("openbookqa", "test", "train"),
         source="Mihaylov et al. 2018"),
    Task("blimp", ("blimp.jsonl.gz", "blimp.jsonl"), suites.BLIMP, measure="raw",
         source="Warstadt et al. 2020: 67 sets of minimal pairs"),
    Task("commonsenseqa", ("commonsense_qa.jsonl", "dev_rand_split.jsonl"), suites.COMMONSENSEQA,
         ("train_rand_split.jsonl",), measure="raw", source="Talmor et al. 2019, validation"),
    Task("socialiqa", ("siqa.jsonl", "social_i_qa.jsonl", "socialiqa-train-dev/dev.jsonl"),
         suites.SOCIALIQA, ("socialiqa-train-dev/train.jsonl",), measure="raw",
         source="Sap et al. 2019, validation"),
    Task("mmlu", ("mmlu_test.jsonl", "mmlu.jsonl"), suites.MMLU, ("mmlu_dev.jsonl",),
         measure="raw", source="Hendrycks et al. 2021; demonstrations of the item's subject",
         instruction=suites.MMLU_INSTRUCTION),
    Task("boolq", ("boolq.jsonl", "BoolQ/val.jsonl", "BoolQ/dev.jsonl"), questions.BOOLQ,
         ("BoolQ/train.jsonl",), measure="raw", tfds=("bool_q", "validation", "train"),
         source="Clark et al. 2019"),
    Task("rte", ("RTE/val.jsonl", "rte/val.jsonl", "RTE/dev.tsv"), questions.RTE,
         ("RTE/train.jsonl", "rte/train.jsonl", "RTE/train.tsv"), measure="raw",
         tfds=("super_glue/rte", "validation", "train"), source="SuperGLUE, Wang et al. 2019"),
    Task("cola", ("CoLA/dev.tsv", "in_domain_dev.tsv"), questions.COLA,
         ("CoLA/train.tsv", "in_domain_train.tsv"), parsers={".tsv": files.cola_rows},
         measure="raw", metric="matthews", tfds=("glue/cola", "validation", "train"),
         source="Warstadt et al. 2019; prompt of lm-evaluation-harness"),
    Task("race_high", ("RACE/test/high", "race_high.jsonl"), questions.RACE, ("RACE/train/high",),
         measure="raw", answer_context="Answer:", tfds=("race/high", "test", "train"),
         source="Lai et al. 2017"),
    Task("race_middle", ("RACE/test/middle", "race_middle.jsonl"), questions.RACE,
         ("RACE/train/middle",), measure="raw", answer_context="Answer:",
         tfds=("race/middle", "test", "train"), source="Lai et al. 2017"),
    Task("squad", ("dev-v1.1.json",), written.squad_forms(False), ("train-v1.1.json",),
         parsers={".json": files.squad_document}, kind="generate", metric="squad",
         tfds=("squad/v1.1", "validation", "train"), source="Rajpurkar et al. 2016"),
    Task("squadv2", ("dev-v2.0.json",), written.squad_forms(True), ("train-v2.0.json",),
         parsers={".json": files.squad_document}, kind="generate", metric="squad",
         tfds=("squad/v2.0", "validation", "train"),
         source="Rajpurkar et al. 2018; no answer is written `unanswerable`"),
    *(Task(f"xquad_{language}", (f"xquad.{language}.json",), written.xquad_forms(language),
           parsers={".json": files.squad_document}, kind="generate", metric="squad",
           source="Artetxe et al. 2020") for language in written.XQUAD),
    Task("summarise", ("cnn_dailymail.jsonl",), written.SUMMARISE, kind="generate",
         metric="rouge", max_new_tokens=100, stop=(),
         source="CNN and Daily Mail; TL;DR: and 100 tokens of Radford et al. 2019, section 3.6"),
    Task("triviaqa", ("triviaqa.jsonl", "triviaqa.json", "triviaqa_sm_sub.jsonl"),
         written.CLOSED_BOOK, ("triviaqa_train.jsonl",), kind="generate",
         parsers={".json": files.trivia_document},
         tfds=("trivia_qa/unfiltered.nocontext", "validation", "train"),
         source=f"closed book, {GPT3}, section 3.2"),
    Task("naturalqs", ("naturalqs.jsonl", "NQ-open.dev.jsonl", "natural_questions_closed.jsonl"),
         written.CLOSED_BOOK, ("NQ-open.train.jsonl",), kind="generate",
         tfds=("natural_questions_open", "validation", "train"),
         source=f"closed book, {GPT3}, section 3.2"),
    Task("webqs", ("webqs.jsonl", "webquestions.examples.test.json"), written.CLOSED_BOOK,
         ("webqs_train.jsonl", "webquestions.examples.train.json"), kind="generate",
         tfds=("web_questions", "test", "train"),
         source=f"closed book, {GPT3}, section 3.2"),
    Task("news", ("news.jsonl",), written.NEWS, kind="generate", metric="none", max_new_tokens=400,
         stop=("\n\nTitle:",), source=f"{GPT3}, section 3.9.4: nothing is scored, texts are kept"),
    *_translations(),
]  # fmt: skip


def _arithmetic_items(name: str, seed: int) -> list[Item]:
    made = generated.arithmetic(name, seed)
    return [item for record in made for item in completions.ARITHMETIC(record)]


def _generated() -> Iterator[Task]:
    for name in generated.ARITHMETIC:
        yield Task(
            name,
            (f"{name}.jsonl.gz",),
            completions.ARITHMETIC,
            kind="cloze",
            separator="\n",
            make=functools.partial(_arithmetic_items, name),
            source=f"{GPT3}, section 3.9.1: 2,000 random items",
        )
    for kind in generated.SCRAMBLES:
        yield Task(
            f"scramble_{kind}",
            ("words.jsonl", "reversed_words.jsonl.gz"),
            completions.scramble_forms(kind),
            kind="cloze",
            instruction=generated.INSTRUCTION,
            separator="",
            source=f"{GPT3}, section 3.9.2; words of a file",
        )


CATALOG = {task.name: task for task in [*_ENTRIES, *_generated()]}
"""Every task that we know, by name."""
