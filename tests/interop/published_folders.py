"""Folders in the forms in which models are published, with tiny vocabularies and weights of ours.

A form is what stands in the small files: which tokenizer files there are, which tokens come first
and which end a text, where the chat template is.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = ["the cat sat on the mat", "a user says: hello, world!", "ünder 42 bridges\n\n  x"] * 9

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}
    {% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
    {% set messages = messages[1:] %}
{% else %}
    {% set system = '' %}
{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate: ' ~ message | tojson) }}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() }}
        {{- ' [/INST]' }}
    {% else %}
        {% generation %}
        {{ ' ' + message['content'] + ' ' + eos_token }}
        {% endgeneration %}
    {% endif %}
{% endfor %}
"""


def write(path: Path, value: Any) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def token(content: str) -> dict[str, Any]:
    """As earlier versions write one."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


def byte_level(special: list[str], size: int) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    made.add_special_tokens(special)
    return made


def gpt2_with_added_tokens(folder: Path) -> None:
    """vocab.json and merges.txt; turn marks in added_tokens.json, as of DialoGPT's descendants."""
    made = byte_level([], 270)
    made.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<|endoftext|>"] = 270
    write(folder / "vocab.json", vocabulary)
    write(folder / "added_tokens.json", {"<|user|>": 271, "<|bot|>": 272, "[PAD]": 273})
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    extra = {"additional_special_tokens": ["<|user|>", "<|bot|>"], "pad_token": "[PAD]"}
    write(folder / "special_tokens_map.json", names | extra)
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 48, **extra}
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    write(folder / "tokenizer_config.json", config | {"chat_template": template + "<|bot|>"})
    write(folder / "generation_config.json", {"bos_token_id": 270, "eos_token_id": 270})


def llama2(folder: Path) -> None:
    """SentencePiece's BPE as a tokenizer.json: <s> before every text, bytes as a last resort."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    words = ["▁", *"thecasonmu", "th", "the", "▁the", "at", "▁c", "▁cat"]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, *words]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "t"), ("▁", "c"), ("▁c", "at")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens([AddedToken(x, normalized=False) for x in ("<unk>", "<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    write(folder / "tokenizer.json", made.to_str())
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write(folder / "special_tokens_map.json", {k: token(v) for k, v in names.items()})
    config: dict[str, Any] = {k: token(v) for k, v in names.items()}
    config |= {"add_bos_token": True, "add_eos_token": False, "chat_template": LLAMA2}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write(folder / "tokenizer_config.json", config)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    write(folder / "generation_config.json", ids)


def llama3_instruct(folder: Path) -> None:
    """Byte-level; BOS by the post-processor; several tokens end a text; template in a file."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]
    made = byte_level([*special, "<|start_header_id|>", "<|end_header_id|>"], 280)
    ids = {name: made.token_to_id(name) for name in special}
    begin = "<|begin_of_text|>"
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A",
                pair=f"{begin} $A {begin}:1 $B:1",
                special_tokens=[(begin, ids[begin])],
            ),
        ]
    )
    write(folder / "tokenizer.json", made.to_str())
    config = {"bos_token": begin, "eos_token": "<|eot_id|>", "tokenizer_class": "TokenizersBackend"}
    write(folder / "tokenizer_config.json", config)
    write(folder / "chat_template.jinja", LLAMA3)
    ends = [ids[name] for name in special[1:]]
    write(folder / "generation_config.json", {"bos_token_id": ids[begin], "eos_token_id": ends})


def smollm(folder: Path) -> None:
    """Llama with GPT-2's kind of tokenizer: nothing before a text, ChatML, im_end ends it."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = byte_level(special, 280)
    write(folder / "tokenizer.json", made.to_str())
    made.model.save(str(folder))
    decoder = {str(made.token_to_id(name)): token(name) | {"special": True} for name in special}
    for entry in decoder.values():
        del entry["__type"]
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": special[0]}
    config = names | {"added_tokens_decoder": decoder, "tokenizer_class": "GPT2Tokenizer"}
    config |= {"add_prefix_space": False, "additional_special_tokens": special[1:]}
    write(folder / "tokenizer_config.json", config | {"chat_template": CHATML})
    ids = {"bos_token_id": made.token_to_id("<|im_start|>")}
    write(folder / "generation_config.json", ids | {"eos_token_id": made.token_to_id("<|im_end|>")})


def without_a_generation_config(folder: Path) -> None:
    """config.json alone says what ends a text."""
    smollm(folder)
    ids = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | ids)


FORMS = {
    "gpt2": gpt2_with_added_tokens,
    "llama2": llama2,
    "llama3": llama3_instruct,
    "smollm": smollm,
    "config": without_a_generation_config,
}


def make_folder(weights: Path, folder: Path, form: str) -> Path:
    """An exported folder's weights with another form's small files."""
    folder.mkdir()
    shutil.copy(weights / "model.safetensors", folder)
    shutil.copy(weights / "config.json", folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("bos_token_id", "eos_token_id"):
        del config[key]
    write(folder / "config.json", config)
    FORMS[form](folder)
    return folder
