"""Templates against transformers: the table's own Jinja twins, and chat templates as they occur."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from finseek.core.errors import InputError
from finseek.samples import Encoder, Sample
from finseek.samples.templates import EOS, TEMPLATES, Message

CHAT = [Message("system", "Be brief."), Message("user", " a? \n"), Message("assistant", "A"), Message("user", "b?"),
        Message("assistant", "B\n\nC")]  # fmt: skip

LLAMA = (
    "{{- bos_token }}\n{%- for message in messages %}\n"
    "    {%- if message.role == 'tool' %}{{ raise_exception('no tools') }}{%- endif %}\n"
    "    {{- '<|head|>' + message['role'] + '<|foot|>\\n\\n' + message['content'] + '<|im_end|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|head|>assistant<|foot|>\\n\\n' }}\n{%- endif %}\n"
)
PLAIN = (
    "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n"
    "{% if m['role'] == 'assistant' %}--\n{% endif %}{% endfor %}"
)
GENERATION = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}[{{ m['role'] }}] {{ m['content'] }}\n{% endif %}{% endfor %}"
)


def folder_with(tokenizer: Path, target: Path, template: str | None, eos: str = EOS) -> Path:
    """A copy of the tokenizer that knows ChatML's markers, with another chat template."""
    shutil.copytree(tokenizer, target)
    described = json.loads((target / "tokenizer.json").read_text())
    added = described["added_tokens"]
    for token in ("<|im_start|>", "<|im_end|>", "<|head|>", "<|foot|>"):
        number = max([t["id"] for t in added] + list(described["model"]["vocab"].values())) + 1
        added.append(added[0] | {"id": number, "content": token, "special": False})
    (target / "tokenizer.json").write_text(json.dumps(described))
    config = json.loads((target / "tokenizer_config.json").read_text())
    config |= {"eos_token": eos, "chat_template": template}
    (target / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return target


def hugging_face(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)


def as_dicts(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_table_equals_its_jinja_twin(name: str, tokenizer: Path, tmp_path: Path) -> None:
    folder = folder_with(tokenizer, tmp_path / "t", TEMPLATES[name].jinja)
    theirs = hugging_face(folder)
    ours, twin = Encoder(folder, name), Encoder(folder, "tokenizer")
    for chat in (CHAT, CHAT[1:3]):
        text = theirs.apply_chat_template(as_dicts(chat), tokenize=False)
        encoded = ours.encode_messages(chat)
        assert ours.decode(encoded.input_ids) == text
        assert encoded.input_ids.tolist() == twin.encode_messages(chat).input_ids.tolist()
        assert encoded.role.tolist() == twin.encode_messages(chat).role.tolist()
        prompt = theirs.apply_chat_template(as_dicts(chat[:-1]), tokenize=False, add_generation_prompt=True)
        assert "".join(piece.text for piece in ours.template.prompt(chat[:-1])) == prompt
        answers = "".join(m.content + ours.template.end for m in chat if m.role == "assistant")
        assert ours.decode(encoded.input_ids[encoded.role != 0]) == answers


@pytest.mark.parametrize(("template", "eos"), [(LLAMA, "<|im_end|>"), (LLAMA, EOS), (GENERATION, "<|im_end|>")])
def test_templates_as_they_occur(template: str, eos: str, tokenizer: Path, tmp_path: Path) -> None:
    folder = folder_with(tokenizer, tmp_path / "t", template, eos)
    encoder = Encoder(folder, "tokenizer")
    ids, role, _ = encoder.encode_messages(CHAT)
    assert encoder.decode(ids) == hugging_face(folder).apply_chat_template(as_dicts(CHAT), tokenize=False)
    assert encoder.decode(ids[role != 0]) == "A<|im_end|>B\n\nC<|im_end|>"
    sample = Sample("in<|im_end|>", "<action>BUY</action>\n<support>x</support>", {"action_span": [8, 20]})
    ids, role, _ = encoder.encode(sample)
    assert encoder.decode(ids[role == 1]) == "BUY</action>"
    assert encoder.decode(ids[role != 0]) == sample.output + "<|im_end|>"
    assert encoder.prompt_ids(sample) == ids[: len(encoder.prompt_ids(sample))].tolist()
    assert ids.tolist().count(encoder.token_id("<|im_end|>")) == encoder.decode(ids).count("<|im_end|>") - 1


def test_a_template_without_special_tokens(tokenizer: Path, tmp_path: Path) -> None:
    encoder = Encoder(folder_with(tokenizer, tmp_path / "t", PLAIN), "tokenizer")
    ids, role, _ = encoder.encode_messages(CHAT)
    assert encoder.decode(ids[role != 0]) == "A\n--\nB\n\nC\n--\n"
    assert encoder.template.end == "\n--\n"


def test_a_template_in_its_own_file_and_in_a_list(tokenizer: Path, tmp_path: Path) -> None:
    for place, template in (("file", None), ("list", [{"name": "default", "template": LLAMA}])):
        folder = folder_with(tokenizer, tmp_path / place, template)  # type: ignore[arg-type]
        if place == "file":
            (folder / "chat_template.jinja").write_text(LLAMA)
        encoder = Encoder(folder, "tokenizer")
        assert encoder.decode(encoder.encode_messages(CHAT).input_ids).startswith(
            "<｜begin▁of▁sentence｜><|head|>system"
        )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m['content'] | trim }}<|im_end|>{% endfor %}", "changes the text"),
        ("{% for m in messages %}{{ m['content'] | upper }}<|im_end|>{% endfor %}", "changes the text"),
        ("{{ messages[0]['content'] }}", "leaves out"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "leaves out"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "would never learn to end one"),
        ("{% for m in messages %}", "is broken"),
        ("{{ strftime_now('%Y') }}", "date of today"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages.append(1) }}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "fails"),
        (None, "has no chat template"),
    ],
)
def test_templates_that_are_refused(template: str | None, message: str, tokenizer: Path, tmp_path: Path) -> None:
    folder = folder_with(tokenizer, tmp_path / "t", template)
    with pytest.raises(InputError, match=message):
        Encoder(folder, "tokenizer").encode_messages(CHAT)


def test_chatml_needs_its_tokens(tokenizer: Path, tmp_path: Path) -> None:
    encoder = Encoder(folder_with(tokenizer, tmp_path / "t", None), "chatml")
    ids, role, _ = encoder.encode_messages(CHAT[1:3])
    assert encoder.decode(ids) == "<|im_start|>user\n a? \n<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    assert encoder.decode(ids[role != 0]) == "A<|im_end|>"
