#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes chat/NAME/: a small checkpoint folder per chat format, with golden prompts.

The templates say the same as the published ones of that family, in our own words; the golden prompts
(golden.jsonl: messages, date, text, ids) come from jinja2 and the `tokenizers` package.

usage: make.py first, then make_chat.py     (jinja2 3.1.6, tokenizers 0.23.3)
"""
import json
from pathlib import Path

import jinja2.sandbox
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
ALTERNATE = ("{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}"
             "{{ raise_exception('roles must alternate') }}{%- endif -%}")
LLAMA3_LOOP = ("{%- for m in messages -%}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n'"
               " + m.content | trim + '<|eot_id|>' -}}{%- endfor -%}"
               "{%- if add_generation_prompt -%}"
               "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}")
TEMPLATES = {
    "llama3": "{{- bos_token -}}" + LLAMA3_LOOP,
    "llama31": "{{- bos_token -}}{%- if not date_string is defined -%}{%- set date_string = '26 Jul 2024' -%}"
               "{%- endif -%}{%- if messages[0].role == 'system' -%}"
               "{%- set system_message = messages[0].content | trim -%}{%- set messages = messages[1:] -%}"
               "{%- else -%}{%- set system_message = '' -%}{%- endif -%}"
               "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n"
               "Today Date: ' + date_string + '\\n\\n' + system_message + '<|eot_id|>' -}}" + LLAMA3_LOOP,
    "llama2": "{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"
              "{%- set messages = messages[1:] -%}{%- else -%}{%- set system = false -%}{%- endif -%}"
              "{%- for m in messages -%}" + ALTERNATE +
              "{%- set text = m.content -%}{%- if loop.index0 == 0 and system -%}"
              "{%- set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m.content -%}{%- endif -%}"
              "{%- if m.role == 'user' -%}{{- bos_token + '[INST] ' + text.strip() + ' [/INST]' -}}"
              "{%- else -%}{{- ' ' + text.strip() + ' ' + eos_token -}}{%- endif -%}{%- endfor -%}",
    "chatml": "{%- if messages[0].role != 'system' -%}"
              "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}"
              "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}"
              "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
              "{#- answers may hold <think> </think> -#}",
    "mistral01": "{{- bos_token -}}{%- for m in messages -%}" + ALTERNATE +
                 "{%- if m.role == 'user' -%}{{- '[INST] ' + m.content + ' [/INST]' -}}{%- else -%}"
                 "{{- m.content + eos_token + ' ' -}}{%- endif -%}{%- endfor -%}",
    "mistral02": "{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"
                 "{%- set messages = messages[1:] -%}{%- endif -%}{{- bos_token -}}"
                 "{%- for m in messages -%}" + ALTERNATE +
                 "{%- if m.role == 'user' -%}{%- if loop.first and system is defined -%}"
                 "{{- ' [INST] ' + system + '\\n\\n' + m.content + ' [/INST]' -}}{%- else -%}"
                 "{{- ' [INST] ' + m.content + ' [/INST]' -}}{%- endif -%}{%- else -%}"
                 "{{- ' ' + m.content + eos_token -}}{%- endif -%}{%- endfor -%}",
}
BASE = {"llama3": "llama3", "llama31": "llama3", "llama2": "sp_legacy", "chatml": "qwen",
        "mistral01": "sp_first", "mistral02": "sp_legacy"}
SPECIALS = {"llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                       "<|eot_id|>", "<|eom_id|>"],
            "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]}
SPECIALS["llama31"] = SPECIALS["llama3"]
S, U, A = ({"role": r} for r in ("system", "user", "assistant"))


def talk(*items):
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return [{"role": roles[r], "content": c} for r, c in items]


TALKS = [
    talk(("U", "Hello")),
    talk(("S", "Be brief."), ("U", "  What is 2+2?\n")),
    talk(("U", "Hi"), ("A", " Hello there. "), ("U", "a <s> b </s> \u00e9\u4f60\nx")),
    talk(("S", "\u2003Two\nlines "), ("U", "one"), ("A", "two"), ("U", "three"), ("A", ""), ("U", "five")),
    talk(("U", ""),),
]


def refuse(message):
    raise ValueError(message)


def build(name):
    folder = HERE / "chat" / name
    folder.mkdir(parents=True, exist_ok=True)
    root = json.loads((HERE / f"{BASE[name]}.json").read_text(encoding="utf-8"))
    root["added_tokens"] = [t for t in root["added_tokens"] if t["content"] in ("<unk>", "<s>", "</s>")]
    top = max(root["model"]["vocab"].values()) + 1
    if BASE[name] == "llama3" or name == "chatml":
        drop = [t for t in root["model"]["vocab"] if t in ("<|begin|>", "<|end|>")]
        assert not drop
        root["post_processor"] = None
    names = SPECIALS.get(name, [])
    for i, content in enumerate(names):
        root["added_tokens"].append({"id": top + i, "content": content, "single_word": False, "lstrip": False,
                                     "rstrip": False, "normalized": False, "special": True})
    if name == "chatml":
        for i, content in enumerate(["<think>", "</think>"]):
            root["added_tokens"].append({"id": top + len(names) + i, "content": content, "special": False,
                                         "single_word": False, "lstrip": False, "rstrip": False,
                                         "normalized": False})
    (folder / "tokenizer.json").write_text(json.dumps(root, ensure_ascii=False, separators=(",", ":")) + "\n",
                                           encoding="utf-8")
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos, eos = {"llama3": ("<|begin_of_text|>", "<|end_of_text|>"), "chatml": (None, "<|im_end|>")}.get(
        BASE[name] if BASE[name] == "llama3" else name, ("<s>", "</s>"))
    config = {"bos_token": bos, "eos_token": {"content": eos}, "pad_token": None,
              "model_max_length": 1000000000000000019884624838656,
              "chat_template": TEMPLATES[name]}
    if name == "llama2":
        config["add_bos_token"], config["add_eos_token"] = True, False
    if name == "mistral02":
        config["chat_template"] = [{"name": "default", "template": TEMPLATES[name]}]
    if name == "llama31":
        del config["chat_template"]
        (folder / "chat_template.jinja").write_text(TEMPLATES[name] + "\n", encoding="utf-8")
    dump = lambda x: json.dumps(x, ensure_ascii=False, indent=1) + "\n"
    (folder / "tokenizer_config.json").write_text(dump(config), encoding="utf-8")
    (folder / "config.json").write_text(dump({"eos_token_id": tok.token_to_id(eos)}), encoding="utf-8")
    (folder / "generation_config.json").write_text(dump(
        {"eos_token_id": [tok.token_to_id(eos), 5]}), encoding="utf-8")
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = refuse
    template = env.from_string(TEMPLATES[name])
    with open(folder / "golden.jsonl", "w", encoding="utf-8") as out:
        for messages in TALKS:
            if name == "mistral01" and messages[0]["role"] == "system":
                continue
            for date in (None, "2026-01-05"):
                extra = {"date_string": "05 Jan 2026"} if date else {}
                text = template.render(messages=messages, bos_token=bos, eos_token=eos,
                                       add_generation_prompt=True, **extra)
                # content is ordinary text: what it says about <s> must not become a token
                plain = text
                ids = None
                if not any("<s>" in m["content"] for m in messages) or "<s>" not in (bos, eos):
                    ids = tok.encode(plain, add_special_tokens=False).ids
                out.write(json.dumps({"messages": messages, "date": date, "text": text, "ids": ids}) + "\n")


for each in TEMPLATES:
    build(each)
