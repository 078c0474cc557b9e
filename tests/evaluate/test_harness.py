"""lm-evaluation-harness drives a run of ours, and comes to what we come to."""

import json
import math

import numpy as np
import pytest

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.utils import normalize_gen_kwargs  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from once import once  # noqa: E402
from tiny_run import Workspace, make_workspace  # noqa: E402

from gpt_jax.evaluate.encode import encode_pair  # noqa: E402
from gpt_jax.evaluate.harness import HarnessModel, sampling_of  # noqa: E402
from gpt_jax.inference.generate import generate_text  # noqa: E402
from gpt_jax.inference.settings import SamplingConfig  # noqa: E402
from gpt_jax.runs.loading import load_run  # noqa: E402

YAML = """
task: ours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {path}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{query}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace)).reference.path


@pytest.fixture(scope="module")
def model(run):
    return HarnessModel(run=str(run), batch_size=3, device="cpu")


@pytest.fixture
def items(shared_data):
    path = shared_data / "eval" / "copa.jsonl"
    if not path.is_file():
        pytest.skip(f"no items of COPA at {path}")
    lines = path.read_text(encoding="utf-8").split("\n")
    found = [json.loads(line) for line in lines if line][:40]
    return [{"query": i["query"], "choices": i["choices"], "gold": i["gold"]} for i in found]


def ask(kind, *arguments):
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_a_task_on_real_items_has_our_score(model, items, tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    (tmp_path / "ours.yaml").write_text(YAML.format(path=tmp_path / "items.jsonl"))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=model, tasks=["ours"], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    asked = [
        encode_pair(model.evaluator.tokenizer, item["query"], " " + choice)
        for item in items
        for choice in item["choices"]
    ]
    ours = {i: s for done in model.evaluator.scorer().score(asked) for i, s in done}
    log_p = np.asarray([ours[i].log_probability for i in range(len(asked))]).reshape(-1, 2)
    accuracy = np.mean(log_p.argmax(1) == [item["gold"] for item in items])
    assert found["results"]["ours"]["acc,none"] == pytest.approx(accuracy)
    samples = sorted(found["samples"]["ours"], key=lambda s: s["doc_id"])
    theirs = [[float(r[0][0]) for r in sample["resps"]] for sample in samples]
    np.testing.assert_allclose(theirs, log_p, rtol=1e-5)
    assert 0.2 < accuracy < 0.8


def test_a_rolling_text_is_scored_once_each_token(model):
    text = "the cat sat on a mat and two dogs run far " * 3
    (whole,) = model.loglikelihood_rolling([ask("loglikelihood_rolling", text)])
    ids = model.evaluator.tokenizer.encode(text)
    seq_len = model.evaluator.model.config.seq_len
    assert len(ids) > 3 * seq_len
    assert whole < 0
    # The first window is the text's beginning by itself.
    head = model.evaluator.tokenizer.decode(ids[:seq_len].tolist())
    (first,) = model.loglikelihood_rolling([ask("loglikelihood_rolling", head)])
    assert whole < first < 0
    assert model.loglikelihood_rolling([ask("loglikelihood_rolling", "")]) == [0.0]


def test_texts_are_those_of_generate_up_to_a_stop(model, run):
    _, gpt, params, tokenizer = load_run(run)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=24)
    prompts = ["the cat", "two dogs run"]
    want = generate_text(gpt, params, tokenizer, prompts, sampling)
    options = {"until": ["zzz"], "max_gen_toks": 24}
    asked = [ask("generate_until", prompt, options) for prompt in prompts]
    assert model.generate_until(asked) == want
    stop = want[0][3:5]
    (cut,) = model.generate_until([ask("generate_until", prompts[0], {**options, "until": stop})])
    assert cut == want[0][: want[0].index(stop)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"until": ["x"]}, {"temperature": 0.0, "max_new_tokens": 256}),
        ({"max_new_tokens": 7}, {"temperature": 0.0, "max_new_tokens": 7}),
        ({"max_tokens": 8, "max_new_tokens": 7}, {"max_new_tokens": 7}),
        ({"max_completion_tokens": 9}, {"max_new_tokens": 9}),
        ({"max_gen_toks": "5", "max_tokens": 8}, {"max_new_tokens": 5}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"temperature": 0.7, "do_sample": False, "top_p": 0.5}, {"temperature": 0.0}),
        ({"do_sample": True, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 4},
         {"temperature": 1.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 4}),
        ({"do_sample": True, "top_k": -1}, {"temperature": 1.0, "top_k": None}),
        ({"repetition_penalty": 1.2}, {"temperature": 0.0, "repetition_penalty": 1.2}),
    ],
)  # fmt: skip
def test_generation_options_are_read_as_the_harness_reads_them(options, expected):
    got = sampling_of(options)
    assert got == SamplingConfig(**({"temperature": 0.0, "max_new_tokens": 256} | expected))
    normal = normalize_gen_kwargs(options)
    assert got.max_new_tokens == normal["max_gen_toks"]
    assert (got.temperature > 0) == bool(normal["do_sample"])


def test_options_that_are_not_followed_are_said_once(model, capsys):
    with pytest.raises(ValueError, match="generation option max_tokens = 'few'"):
        sampling_of({"max_tokens": "few"})
    options = {"max_new_tokens": 2, "num_beams": 4, "num_return_sequences": 1}
    model.generate_until([ask("generate_until", "the cat", options)] * 2)
    assert capsys.readouterr().err.count("ignores num_beams = 4") == 1


def test_a_greedy_continuation_is_said_to_be_greedy(model, run):
    _, gpt, params, tokenizer = load_run(run)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=4)
    (text,) = generate_text(gpt, params, tokenizer, ["the cat"], sampling)
    found = model.loglikelihood(
        [ask("loglikelihood", "the cat", text), ask("loglikelihood", "the cat", "#")]
    )
    assert [greedy for _, greedy in found] == [True, False]
    assert all(math.isfinite(log_p) and log_p < 0 for log_p, _ in found)


def test_chat_templates_are_refused_by_name(model):
    for ask_for in (model.apply_chat_template, model.chat_template):
        with pytest.raises(ValueError, match="--apply_chat_template: the model gpt_jax"):
            ask_for([{"role": "user", "content": "a"}])
