"""Every form of every task gives the same item; what is no form is one line with its place."""

import bz2
import copy
import gzip
import json
import lzma
import re

import pytest
from fuzzed import mistakes
from hypothesis import given
from hypothesis import strategies as st
from task_records import FORMS, ITEMS

from gpt_jax.evaluate.catalog import CATALOG
from gpt_jax.evaluate.formats import completions
from gpt_jax.evaluate.formats.form import Forms
from gpt_jax.evaluate.items import read_file, read_items
from gpt_jax.evaluate.tasks import Item, Task


def write(path, *found):
    path.write_text("".join(json.dumps(record) + "\n" for record in found), encoding="utf-8")
    return path


def test_every_task_of_the_catalog_is_here():
    assert FORMS.keys() == CATALOG.keys()
    assert all(isinstance(task.read, Forms) for task in CATALOG.values())


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_of_a_record_give_the_same_item(name):
    items = {publisher: list(CATALOG[name].read(r)) for publisher, r in FORMS[name].items()}
    (first, *_) = items.values()
    assert len(first) == 1
    assert items == dict.fromkeys(items, first)
    if name in ITEMS:
        assert first == [ITEMS[name]]


def test_every_declared_form_is_among_the_records():
    written, met = set(), set()
    for name, task in CATALOG.items():
        assert isinstance(task.read, Forms)
        written |= {form.fields for form in task.read.forms}
        met |= {task.read.form_of(record).fields for record in FORMS[name].values()}
    assert written == met


def paths(record, before=()):
    """The place of every value in a record."""
    inside = (
        record.items()
        if isinstance(record, dict)
        else enumerate(record)
        if isinstance(record, list)
        else ()
    )
    for key, value in inside:
        yield (*before, key)
        yield from paths(value, (*before, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "label", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mutated(draw):
    """A task, and a record of it in which a value or two are gone or something else."""
    name = draw(st.sampled_from(sorted(FORMS)))
    record = copy.deepcopy(draw(st.sampled_from(list(FORMS[name].values()))))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(paths(record)) or [("gone",)]))
        holder = record
        for key in way:
            holder = holder[key]
        if draw(st.booleans()) and last in (holder if isinstance(holder, dict) else range(99)):
            del holder[last]
        else:
            holder[last] = draw(JSON)
        if not record:
            break
    return name, record


@mistakes(120)
@given(mutated())
def test_a_mutated_record_is_an_item_or_one_line(case):
    name, record = case
    told, items = "", []
    try:
        items = list(CATALOG[name].read(record))
    except ValueError as error:
        told = str(error)
    assert bool(told) != bool(items)
    assert "\n" not in told
    for item in items:
        assert isinstance(item, Item)
        assert all(text.strip() for text in (*item.answers, *(c for _, c in item.pairs())))
        assert item.answers or 0 <= item.gold < len(item.pairs())
        assert item.answers or len(item.pairs()) >= (2 if CATALOG[name].kind == "choice" else 1)


@mistakes(30)
@given(st.sampled_from(sorted(FORMS)), JSON.filter(lambda x: not isinstance(x, dict)))
def test_a_record_that_is_something_else_is_one_line(name, value):
    with pytest.raises(ValueError, match=r"the record is .*, not an object") as caught:
        list(CATALOG[name].read(value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "record", "told"),
    [
        ("lambada", {"txt": "He saw the cat"}, "fields found: txt; forms known: llm-foundry (con"),
        ("lambada", {"text": None}, "field text is None; it must be text"),
        ("wsc273", {"context_options": ["a", "b"], "continuation": "c"}, "forms known:"),
        ("boolq", {"passage": "P", "question": "q", "label": "maybe"}, "field label is 'maybe'"),
        ("boolq", {"passage": "P", "question": "q", "label": -1}, "published without answers"),
        ("rte", {"premise": "P", "hypothesis": "H", "label": 2}, "field label is 2; allowed: ent"),
        ("winogrande", FORMS["winogrande"]["official"] | {"answer": ""}, "without answers"),
        ("summarise", {"article": "A"}, "fields found: article; forms known"),
        ("squad", FORMS["squad"]["official"] | {"answers": []}, "squadv2"),
        ("arc_easy", FORMS["arc_easy"]["official"] | {"answerKey": "E"}, "field answerKey is 'E'"),
    ],
)
def test_a_faulty_record_is_one_line_with_file_and_line(tmp_path, name, record, told):
    """Among them what was a result before: no field of LAMBADA, no gold of a Winograd schema."""
    good = next(iter(FORMS[name].values()))
    path = write(tmp_path / f"{name}.jsonl", good, record)
    with pytest.raises(ValueError, match="line 2: ") as caught:
        read_file(CATALOG[name], path)
    message = str(caught.value)
    assert message.startswith(f"{path} line 2: task {name}: ")
    assert told in message
    assert "\n" not in message


def test_a_users_own_reader_is_named_with_the_record(tmp_path):
    task = Task("mine", ("mine.jsonl",), lambda r: [Item(r["q"], (" yes", " no"), r["label"])])
    write(tmp_path / "mine.jsonl", {"q": "?", "label": 1}, {"question": "?"})
    with pytest.raises(ValueError, match=r"line 2: task mine .*KeyError: 'q'.*it has question"):
        read_items(task, tmp_path, tfds=False)


def test_hellaswag_is_one_item_in_all_its_files(tmp_path):
    """The six-line file, the jsonl and the harness's records ask the same."""
    made = FORMS["hellaswag"]
    six = made["six lines"]
    lines = [f"{six['activity_label']}: {six['ctx']}", six["label"], *six["endings"]]
    text = tmp_path / "a.txt.bz2"
    text.write_bytes(bz2.compress("\n".join([*lines, *lines, ""]).encode()))
    found = read_file(CATALOG["hellaswag"], text)
    assert found.items == [ITEMS["hellaswag"]] * 2
    assert found.forms == {"six lines an item": 2}
    whole = write(tmp_path / "hellaswag_val.jsonl", made["official"], made["Hugging Face"])
    assert read_file(CATALOG["hellaswag"], whole).items == found.items
    text.write_bytes(bz2.compress("\n".join(lines[:-1]).encode()))
    with pytest.raises(ValueError, match=r"a\.txt\.bz2: 5 lines are not six an item"):
        read_file(CATALOG["hellaswag"], text)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_packed_records_are_found_and_read(tmp_path, suffix):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    pack[".zst"] = pytest.importorskip("zstandard").compress
    record = json.dumps(FORMS["hellaswag"]["official"]).encode()
    (tmp_path / f"hellaswag.jsonl{suffix}").write_bytes(pack[suffix](record + b"\n"))
    asked = read_items(CATALOG["hellaswag"], tmp_path, tfds=False)
    assert asked.items == [ITEMS["hellaswag"]]


def test_hellaswags_published_file_and_its_own_jsonl_agree(shared_data):
    """The item of the fault is in the six-line file too. 3,243 contexts are of ActivityNet."""
    by_text = read_items(CATALOG["hellaswag"], shared_data / "eval", tfds=False).items
    path = shared_data / "faults" / "hellaswag_jsonl" / "hellaswag_val.jsonl"
    (item,) = read_file(CATALOG["hellaswag"], path).items
    assert item in by_text
    texts = [text for item in by_text for text in (item.context, *item.choices)]
    assert not any(re.search(r"\[.*?\]", text) for text in texts)
    assert all(len(item.choices) == 4 and 0 <= item.gold < 4 for item in by_text)
    joined = [item for item in by_text if item.context[-1] not in ".!?"]
    assert (len(by_text), len(joined)) == (10_042, 3_243)


def test_a_last_word_after_a_line_break_is_one_item_in_both_forms():
    """One of LAMBADA's 5,153 is so; lm-evaluation-harness scores the line break too."""
    read = CATALOG["lambada"].read
    (parted,) = read({"context": "saw the", "continuation": "\n\nrecorder"})
    assert [parted] == list(read({"text": "saw the \n\nrecorder"}))
    assert parted == Item("saw the", (" \n\nrecorder",))


def test_what_stands_after_the_last_sentence_begins_one():
    context = completions.hellaswag_context
    assert context("A man sits. He looks. the Tall man") == "A man sits. He looks. The tall man"
    assert context("A man sits. He looks.") == "A man sits. He looks."
    assert context("a man") == "a man"


def test_nested_and_numbered_files(tmp_path):
    spans = [{"text": "tin", "answer_start": 0}]
    asked = {"id": "1", "question": "What is a metal?", "answers": spans}
    paragraph = {"context": "Tin is a metal.", "qas": [asked, asked | {"answers": []}]}
    document = {"version": "2.0", "data": [{"title": "Tin", "paragraphs": [paragraph]}]}
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps(document))
    items = read_items(CATALOG["squadv2"], tmp_path, tfds=False).items
    assert [item.answers for item in items] == [("tin",), ("unanswerable",)]
    with pytest.raises(ValueError, match="article 1, paragraph 1, question 2: task squad: "):
        read_file(CATALOG["squad"], path)
    path.write_text(json.dumps({"data": [{"title": "Tin"}]}))
    with pytest.raises(ValueError, match=r"v2\.0\.json article 1: field paragraphs is None"):
        read_file(CATALOG["squadv2"], path)
    cbt = tmp_path / "cbt.txt"
    cbt.write_text("1 A cat sat .\n21 He saw XXXXX .\tcat\t\tdog|cat\n\n1 A cat .\n21 He\tcat\n")
    with pytest.raises(ValueError, match=r"cbt\.txt line 5: not CBT's query"):
        read_file(CATALOG["cbt_cn"], cbt)
    cbt.write_text("1 A cat sat .\n21 He saw XXXXX .\tcat\t\tdog|cat\n\n")
    assert read_file(CATALOG["cbt_cn"], cbt).items == [ITEMS["cbt_cn"]]
    trivia = tmp_path / "triviaqa.json"
    trivia.write_text(json.dumps({"Data": [FORMS["triviaqa"]["official"]]}))
    assert read_items(CATALOG["triviaqa"], tmp_path, tfds=False).items == [ITEMS["triviaqa"]]
    lambada = tmp_path / "lambada_test_plain_text.txt"
    lambada.write_text("He saw the cat\n\nHe saw the cat\n")
    assert read_items(CATALOG["lambada"], tmp_path, tfds=False).items == [ITEMS["lambada"]] * 2


def test_cola_as_it_is_distributed(tmp_path):
    """Four columns without a header, and quotes that are a sentence's own."""
    path = tmp_path / "in_domain_dev.tsv"
    path.write_text('gj04\t1\t\tAl ran.\nks08\t0\t*\t"Al ran, he said.\n')
    first, second = read_items(CATALOG["cola"], tmp_path, tfds=False).items
    assert first == ITEMS["cola"]
    assert second.context.startswith('"Al ran, he said.\n')
    assert second.gold == 0
    path.write_text("sentence\tlabel\nAl ran.\t1\n")
    assert read_file(CATALOG["cola"], path).items == [ITEMS["cola"]]
    path.write_text("gj04\t1\t\tAl ran.\nks08\t0\t*\n")
    with pytest.raises(ValueError, match=r"line 2: 3 cells; CoLA has 4: source, label, star"):
        read_file(CATALOG["cola"], path)


def test_xml_as_it_is_distributed(tmp_path):
    copa = tmp_path / "copa-test.xml"
    item = (
        '<item id="1" asks-for="effect" most-plausible-alternative="{}">'
        "<p>It fell.</p><a1>I ran.</a1><a2>It broke.</a2></item>"
    )
    copa.write_text(f"<copa-corpus>{item.format(2)}{item.format('?')}</copa-corpus>")
    with pytest.raises(ValueError, match=r"xml item 2: task copa: field label is None"):
        read_file(CATALOG["copa"], copa)
    copa.write_text(f"<copa-corpus>{item.format(2)}</copa-corpus>")
    assert read_file(CATALOG["copa"], copa).items == [ITEMS["copa"]]
    wsc = tmp_path / "WSCollection.xml"
    schema = (
        "<schema><text>\n<txt1>Al hit Bo as</txt1>\n<pron>he</pron>\n<txt2>was mad.</txt2></text>"
        "<answers><answer>Al</answer><answer> Bo</answer></answers>"
        "<correctAnswer>B.</correctAnswer></schema>"
    )
    wsc.write_text(f"<collection>{schema * 285}</collection>")
    found = read_items(CATALOG["wsc273"], tmp_path, tfds=False).items
    assert found == [ITEMS["wsc273"]] * 273
    wsc.write_text("<collection>")
    with pytest.raises(ValueError, match=r"WSCollection\.xml is no XML"):
        read_file(CATALOG["wsc273"], wsc)


def test_labels_in_a_file_of_their_own(tmp_path):
    record = {key: x for key, x in FORMS["piqa"]["TFDS"].items() if key != "label"}
    path = write(tmp_path / "dev.jsonl", record, record)
    (tmp_path / "dev-labels.lst").write_text("1\n0\n")
    assert [item.gold for item in read_file(CATALOG["piqa"], path).items] == [1, 0]
    (tmp_path / "dev-labels.lst").write_text("1\n")
    with pytest.raises(ValueError, match="1 labels for 2 records"):
        read_file(CATALOG["piqa"], path)


def test_files_that_do_not_hold_what_their_names_say(tmp_path):
    def told(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name) as caught:
            read_file(CATALOG["lambada"], path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    whole = gzip.compress(b'{"text": "a b"}\n' * 99)
    assert "line 2 is no JSON" in told("a.jsonl", b'{"text": "a b"}\n{"a": \n')
    assert "line 1 cannot be read as JSON" in told("b.jsonl", b"[" * 100_000)
    assert "line 2 holds null" in told("c.jsonl", b'{"text": "a b"}\nnull\n')
    assert "cut short" in told("d.jsonl.gz", whole[:-4])
    assert "cut short" in told("e.txt.bz2", bz2.compress(b"a b")[:-4])
    assert "line 3 has 1 of the header's 2 cells" in told("f.csv", b"text,b\na b,2\na b\n")
    assert "line 2 is not UTF-8" in told("g.txt", b"a b\n\xff b\n")
    assert "not in a form that is known for .dat" in told("h.dat", b"a")


def test_byte_order_marks_are_no_part_of_a_field(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "lambada.jsonl").write_bytes('{"text": "un défait"}\n'.encode(encoding))
        (item,) = read_items(CATALOG["lambada"], tmp_path, tfds=False).items
        assert item == Item("un", (" défait",))
