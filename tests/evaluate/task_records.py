"""One item of each task as each publisher writes it: whatever the form, the item is the same.

The texts are invented; the second choice is right.
"""

from gpt_jax.evaluate.formats.written import XQUAD
from gpt_jax.evaluate.tasks import Item

ARC_CHOICES = [{"text": "the sun", "label": "A"}, {"text": "a lamp", "label": "B"}]
COLUMNS = {"text": ["the sun", "a lamp"], "label": ["A", "B"]}
PASSAGE = "Tin -- Tin is a metal."
FOUR = ["the sun", "a lamp", "a star", "tin"]
STORY = ["Al rose.", "He ate.", "He ran.", "It rained."]
ARTICLE = "Al went home. It was late."
SPANS = {"text": ["tin", "tin"], "answer_start": [0, 0]}

LAMBADA = {
    "llm-foundry": {"context": "He saw the", "continuation": "cat"},
    "Hugging Face": {"text": "He saw the cat"},
    "TFDS": {"passage": "He saw the cat"},
}
ARC = {
    "official": {
        "id": "1",
        "question": {"stem": "What shines?", "choices": ARC_CHOICES},
        "answerKey": "B",
    },
    "Hugging Face": {"id": "1", "question": "What shines?", "choices": COLUMNS, "answerKey": "B"},
    "TFDS": {
        "id": "1",
        "question": "What shines?",
        "choices": {"text": ["the sun", "a lamp"], "label": [0, 1]},
        "answerKey": 1,
    },
    "llm-foundry": {
        "query": "Question: What shines?\n",
        "choices": ["the sun", "a lamp"],
        "gold": 1,
    },
}
RACE = {
    "official": {
        "article": ARTICLE,
        "questions": ["Who went home?"],
        "options": [["Bo", "Al", "Cy", "Di"]],
        "answers": ["B"],
        "id": "high1.txt",
    },
    "TFDS": {
        "article": ARTICLE,
        "questions": ["Who went home?"],
        "options": [["Bo", "Al", "Cy", "Di"]],
        "answers": ["B"],
        "example_id": "high1.txt",
    },
    "Hugging Face": {
        "example_id": "high1.txt",
        "article": ARTICLE,
        "answer": "B",
        "question": "Who went home?",
        "options": ["Bo", "Al", "Cy", "Di"],
    },
    "EleutherAI": {
        "article": ARTICLE,
        "problems": "[{'question': 'Who went home?', 'answer': 'B', "
        "'options': ['Bo', 'Al', 'Cy', 'Di']}]",
    },
    "llm-foundry": {
        "query": f"Article: {ARTICLE}\n\nQuestion: Who went home?\nAnswer:",
        "choices": ["Bo", "Al", "Cy", "Di"],
        "gold": 1,
    },
}
SQUAD = {
    "Hugging Face": {
        "id": "1",
        "title": "Tin",
        "context": PASSAGE,
        "question": "What is a metal?",
        "answers": SPANS,
    },
    "TFDS": {
        "id": "1",
        "title": "Tin",
        "context": PASSAGE,
        "question": "What is a metal?",
        "answers": SPANS,
    },
    "official": {
        "id": "1",
        "title": "Tin",
        "context": PASSAGE,
        "question": "What is a metal?",
        "answers": [{"text": "tin", "answer_start": 0}, {"text": "tin", "answer_start": 0}],
    },
}
PROMPT = f"Title: Tin\n\nBackground: {PASSAGE}\n\nQuestion: What is a metal?\n\nAnswer:"
XQUAD_RECORDS = {
    name: {key: value for key, value in record.items() if key != "title"}
    for name, record in SQUAD.items()
}
CBT = {
    "official and Hugging Face": {
        "sentences": ["A cat sat ."],
        "question": "He saw XXXXX .",
        "answer": "cat",
        "options": ["dog", "cat"],
    }
}
ARITHMETIC = {"official": {"context": "\n\nQ: What is 2 plus 3?\n\nA:", "completion": " 5"}}
SCRAMBLE = {
    "words": {"word": "defeat"},
    "official": {"context": "\ntaefed =", "completion": " defeat"},
}

FORMS = {
    "lambada": LAMBADA,
    "lambada_blank": LAMBADA,
    "hellaswag": {
        "official": {
            "ind": 1,
            "activity_label": "Tea",
            "ctx_a": "[header] How to make tea [title] Boil water.",
            "ctx_b": "then you",
            "ctx": "[header] How to make tea [title] Boil water. then you",
            "split": "val",
            "split_type": "indomain",
            "label": 1,
            "endings": ["sleep.", "pour [substeps] it.", "run.", "sing."],
            "source_id": "wikihow~1",
        },
        "Hugging Face": {
            "ind": 1,
            "activity_label": "Tea",
            "ctx_a": "[header] How to make tea [title] Boil water.",
            "ctx_b": "then you",
            "ctx": "[header] How to make tea [title] Boil water. then you",
            "endings": ["sleep.", "pour [substeps] it.", "run.", "sing."],
            "label": "1",
        },
        "TFDS": {
            "activity_label": "Tea",
            "context": "[header] How to make tea [title] Boil water. then you",
            "endings": ["sleep.", "pour [substeps] it.", "run.", "sing."],
            "label": 1,
            "split_type": "indomain",
            "source_id": "wikihow~1",
        },
        "six lines": {
            "activity_label": "Tea",
            "ctx": "How to make tea. Boil water. then you",
            "endings": ["sleep.", "pour it.", "run.", "sing."],
            "label": "1",
        },
        "llm-foundry": {
            "query": "Tea: How to make tea. Boil water. Then you",
            "choices": ["sleep.", "pour it.", "run.", "sing."],
            "gold": 1,
        },
    },
    "piqa": {
        "TFDS": {"id": "1", "goal": "How to sit?", "sol1": "Stand.", "sol2": "Bend.", "label": 1},
        "labels apart": {"goal": "How to sit?", "sol1": "Stand.", "sol2": "Bend.", "label": "1"},
        "llm-foundry": {
            "query": "Question: How to sit?\n",
            "choices": ["Stand.", "Bend."],
            "gold": 1,
        },
    },
    "copa": {
        "TFDS": {
            "premise": "It fell.",
            "choice1": "I ran.",
            "choice2": "It broke.",
            "question": "effect",
            "label": 1,
            "idx": 0,
        },
        "llm-foundry": {
            "query": "It fell, therefore",
            "choices": ["i ran.", "it broke."],
            "gold": 1,
        },
    },
    "wsc273": {
        "llm-foundry": {
            "context_options": ["Al hit Bo as Al", "Al hit Bo as Bo"],
            "continuation": "was mad.",
            "gold": 1,
        },
        "Hugging Face": {
            "text": "Al hit Bo as he was mad.",
            "pronoun": "he",
            "pronoun_loc": 13,
            "quote": "he was mad",
            "quote_loc": 13,
            "options": ["Al", "Bo"],
            "label": 1,
            "source": "",
        },
        "TFDS": {
            "text": "Al hit Bo as he was mad.",
            "pronoun_text": "he",
            "pronoun_start": 13,
            "pronoun_end": 15,
            "option1": "Al",
            "option1_normalized": "Al",
            "option2": "Bo",
            "option2_normalized": "Bo",
            "label": 1,
            "idx": 0,
        },
    },
    "winogrande": {
        "official": {
            "qID": "1",
            "sentence": "Al hit Bo as _ was mad.",
            "option1": "Al",
            "option2": "Bo",
            "answer": "2",
        },
        "TFDS": {
            "sentence": "Al hit Bo as _ was mad.",
            "option1": "Al",
            "option2": "Bo",
            "label": 1,
        },
        "llm-foundry": {
            "context_options": ["Al hit Bo as Al", "Al hit Bo as Bo"],
            "continuation": "was mad.",
            "gold": 1,
        },
    },
    "cbt_cn": CBT,
    "cbt_ne": CBT,
    "storycloze": {
        "official": {
            "InputStoryid": "1",
            **{f"InputSentence{i}": s for i, s in enumerate(STORY, 1)},
            "RandomFifthSentenceQuiz1": "He slept.",
            "RandomFifthSentenceQuiz2": "He got wet.",
            "AnswerRightEnding": "2",
        },
        "Hugging Face": {
            "story_id": "1",
            **{f"input_sentence_{i}": s for i, s in enumerate(STORY, 1)},
            "sentence_quiz1": "He slept.",
            "sentence_quiz2": "He got wet.",
            "answer_right_ending": 2,
        },
        "older": {
            **{f"input_sentence_{i}": s for i, s in enumerate(STORY, 1)},
            "text_right_ending_1": "He slept.",
            "text_right_ending_2": "He got wet.",
            "answer_right_ending": 2,
        },
        "TFDS": {
            "context": " ".join(STORY),
            "endings": ["He slept.", "He got wet."],
            "label": 2,
        },
        "llm-foundry": {
            "query": " ".join(STORY),
            "choices": ["He slept.", "He got wet."],
            "gold": 1,
        },
    },
    "arc_easy": ARC,
    "arc_challenge": ARC,
    "openbookqa": {
        "official": {
            "id": "1",
            "question": {
                "stem": "What shines?",
                "choices": [{"text": t, "label": l} for t, l in zip(FOUR, "ABCD", strict=True)],
            },
            "answerKey": "B",
        },
        "Hugging Face": {
            "id": "1",
            "question_stem": "What shines?",
            "choices": {"text": FOUR, "label": ["A", "B", "C", "D"]},
            "answerKey": "B",
        },
        "TFDS": {
            "question": {
                "stem": "What shines?",
                **{f"choice_{l}": t for t, l in zip(FOUR, "ABCD", strict=True)},
            },
            "fact1": "",
            "humanScore": 1.0,
            "clarity": 1.0,
            "turkIdAnonymized": "",
            "answerKey": 1,
        },
        "llm-foundry": {"query": "What shines?", "choices": FOUR, "gold": 1},
    },
    "blimp": {
        "official": {
            "sentence_good": "Who sleeps?",
            "sentence_bad": "Who sleep?",
            "field": "syntax",
            "UID": "agreement",
            "pairID": "0",
        },
    },
    "commonsenseqa": {
        "official": {
            "id": "1",
            "question": {
                "question_concept": "light",
                "stem": "What shines?",
                "choices": [{"text": t, "label": l} for t, l in zip(FOUR, "ABCD", strict=True)],
            },
            "answerKey": "B",
        },
        "Hugging Face": {
            "id": "1",
            "question": "What shines?",
            "question_concept": "light",
            "choices": {"text": FOUR, "label": ["A", "B", "C", "D"]},
            "answerKey": "B",
        },
    },
    "socialiqa": {
        "Hugging Face": {
            "context": "Al fell.",
            "question": "Why?",
            "answerA": "he ran",
            "answerB": "he slept",
            "answerC": "he sang",
            "label": "2",
        },
    },
    "mmlu": {
        "Hugging Face": {
            "question": "What shines?",
            "subject": "high_school_physics",
            "choices": FOUR,
            "answer": 1,
        },
    },
    "boolq": {
        "official": {"question": "is tin a metal", "title": "Tin", "answer": True,
                     "passage": PASSAGE},
        "TFDS": {"question": "is tin a metal", "title": "Tin", "answer": 1, "passage": PASSAGE},
        "SuperGLUE": {"question": "is tin a metal", "passage": PASSAGE, "idx": 0, "label": True},
        "Hugging Face": {"question": "is tin a metal", "passage": PASSAGE, "idx": 0, "label": 1},
        "llm-foundry": {
            "query": f"Passage: {PASSAGE}\nQuestion: is tin a metal?\n",
            "choices": ["no", "yes"],
            "gold": 1,
        },
    },
    "rte": {
        "SuperGLUE": {"premise": "Al ran.", "hypothesis": "Al slept.", "label": "not_entailment",
                      "idx": 0},
        "TFDS": {"premise": "Al ran.", "hypothesis": "Al slept.", "label": 1, "idx": 0},
        "GLUE": {"index": "0", "sentence1": "Al ran.", "sentence2": "Al slept.",
                 "label": "not_entailment"},
        "llm-foundry": {
            "query": "Al ran.\nquestion: Al slept. True or False?\nanswer:",
            "choices": ["True", "False"],
            "gold": 1,
        },
    },
    "cola": {
        "official": {"source": "gj04", "label": "1", "star": "", "sentence": "Al ran."},
        "TFDS": {"sentence": "Al ran.", "label": 1, "idx": 0},
        "llm-foundry": {
            "query": "Al ran.\nQuestion: Does this sentence make sense?\nAnswer:",
            "choices": ["no", "yes"],
            "gold": 1,
        },
    },
    "race_high": RACE,
    "race_middle": RACE,
    "squad": SQUAD | {"llm-foundry": {"context": PROMPT, "continuation": "tin"}},
    "squadv2": SQUAD
    | {"TFDS": SQUAD["TFDS"] | {"is_impossible": False, "plausible_answers": SPANS}}
    | {"llm-foundry": {"context": PROMPT, "continuation": "tin"}},
    **{f"xquad_{language}": XQUAD_RECORDS for language in XQUAD},
    "summarise": {
        "CNN": {"id": "1", "article": ARTICLE, "highlights": "Al went home."},
        "XSum": {"id": "1", "document": ARTICLE, "summary": "Al went home."},
        "plain": {"article": ARTICLE, "summary": "Al went home."},
    },
    "triviaqa": {
        "official": {
            "QuestionId": "1",
            "Question": "Which metal?",
            "Answer": {"Value": "Tin", "Aliases": ["Tin", "Sn"], "NormalizedAliases": ["tin"]},
        },
        "Hugging Face": {
            "question_id": "1",
            "question": "Which metal?",
            "answer": {"value": "Tin", "aliases": ["Tin", "Sn"], "normalized_aliases": ["tin"]},
        },
        "TFDS": {
            "question": "Which metal?",
            "question_id": "1",
            "question_source": "",
            "entity_pages": {},
            "search_results": {},
            "answer": {"value": "Tin", "aliases": ["Tin", "Sn"], "type": ""},
        },
        "llm-foundry": {
            "context": "Question: Which metal?\nAnswer:",
            "answer": "Tin",
            "aliases": ["Sn"],
        },
    },
    "naturalqs": {
        "official": {"question": "which metal", "answer": ["Tin", "Sn"]},
        "TFDS": {"question": "which metal", "answer": ["Tin", "Sn"]},
        "llm-foundry": {
            "context": "Question: which metal\nAnswer:",
            "answer": "Tin",
            "aliases": ["Sn"],
        },
    },
    "webqs": {
        "official": {
            "url": "u",
            "utterance": "which metal?",
            "targetValue": '(list (description Tin) (description "Sn"))',
        },
        "Hugging Face": {"url": "u", "question": "which metal?", "answers": ["Tin", "Sn"]},
        "TFDS": {"url": "u", "question": "which metal?", "answers": ["Tin", "Sn"]},
    },
    "news": {"with a subtitle": {"title": "Tin", "subtitle": "", "article": ARTICLE},
             "without": {"title": "Tin", "article": ARTICLE}},
    **{
        f"translate_{source}_{target}": {
            "Hugging Face": {"translation": {source: "Al runs.", target: "Al: rennt."}},
            "lines": {source: "Al runs.", target: "Al: rennt."},
        }
        for source, target in (("en", "de"), ("de", "en"), ("en", "fr"), ("fr", "en"), ("en", "ro"))
    },
    **{
        f"{n}_digit_{kind}": ARITHMETIC
        for n in ("two", "three", "four", "five")
        for kind in ("addition", "subtraction")
    },
    "two_digit_multiplication": ARITHMETIC,
    "single_digit_three_ops": ARITHMETIC,
    **{
        f"scramble_{kind}": SCRAMBLE
        for kind in ("cycle", "anagram1", "anagram2", "insertion", "reversed")
    },
}  # fmt: skip
"""{task: {publisher: record}}."""

_SHINES = Item("Question: What shines?\nAnswer:", (" the sun", " a lamp"), 1)
_WINOGRAD = Item("", (" was mad.",), 1, ("Al hit Bo as Al", "Al hit Bo as Bo"))
ITEMS = {
    "lambada": Item("He saw the", (" cat",)),
    "lambada_blank": Item("He saw the ____. ->", (" cat",)),
    "hellaswag": Item(
        "Tea: How to make tea. Boil water. Then you", (" sleep.", " pour it.", " run.", " sing."), 1
    ),
    "piqa": Item("Question: How to sit?\nAnswer:", (" Stand.", " Bend."), 1),
    "copa": Item("It fell therefore", (" i ran.", " it broke."), 1),
    "wsc273": _WINOGRAD,
    "winogrande": _WINOGRAD,
    "cbt_cn": Item("A cat sat. He saw", (" dog.", " cat."), 1),
    "storycloze": Item(" ".join(STORY), (" He slept.", " He got wet."), 1),
    "arc_easy": _SHINES,
    "arc_challenge": _SHINES,
    "openbookqa": Item(_SHINES.context, tuple(f" {choice}" for choice in FOUR), 1),
    "boolq": Item(f"{PASSAGE}\nquestion: is tin a metal?\nanswer:", (" no", " yes"), 1),
    "rte": Item("Al ran.\nquestion: Al slept. True or False?\nanswer:", (" True", " False"), 1),
    "cola": Item("Al ran.\nQuestion: Does this sentence make sense?\nAnswer:", (" no", " yes"), 1),
    "race_high": Item(
        f"Article: {ARTICLE}\n\nQuestion: Who went home?\nAnswer:", (" Bo", " Al", " Cy", " Di"), 1
    ),
    "squad": Item(
        f"Title: Tin\n\nBackground: {PASSAGE}\n\nQuestion: What is a metal?\n\nAnswer:",
        answers=("tin",),
    ),
    "xquad_de": Item(
        f"Kontext: {PASSAGE}\n\nFrage: What is a metal?\n\nAntwort:", answers=("tin",)
    ),
    "summarise": Item(f"{ARTICLE}\nTL;DR:", answers=("Al went home.",)),
    "triviaqa": Item("Q: Which metal?\n\nA:", answers=("Tin", "Sn")),
    "naturalqs": Item("Q: which metal\n\nA:", answers=("Tin", "Sn")),
    "webqs": Item("Q: which metal?\n\nA:", answers=("Tin", "Sn")),
    "news": Item("Title: Tin\nSubtitle: \nArticle:", answers=(ARTICLE,)),
    "translate_en_de": Item(
        "Q: What is the German translation of Al runs.\nA:", answers=("Al: rennt.",)
    ),
    "two_digit_addition": Item("Q: What is 2 plus 3?\n\nA:", (" 5\n",)),
    "scramble_reversed": Item("taefed =", (" defeat\n",)),
}
"""The item of a task's records, written out by hand."""
