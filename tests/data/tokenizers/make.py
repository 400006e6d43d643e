#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the small tokenizer.json fixtures and what the `tokenizers` package says about them.

Each NAME.json has a NAME.jsonl beside it: {"text", "flags", "ids", "decoded"}.  flags are those of
phx_tokenizer_encode: 1 = special strings become special ids, 2 = the post-processor acts.
"decoded" is the reference's decode(ids) with special tokens shown.

usage: make.py            (tokenizers 0.23.3; rewrites the files in this folder)
"""
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import AddedToken, Regex

HERE = Path(__file__).resolve().parent
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
MARK = "\u2581"


def corpus():
    lines = [json.loads(x)["text"] for x in open(HERE / "o200k_vectors.jsonl", encoding="utf-8")]
    return lines + [p.read_text() for p in (HERE / "make.py", HERE / "unicode_new.py")]


def texts():
    """A fixed mix: real lines, odd white space, special-looking strings, random code points."""
    rng = random.Random(7)
    lines = [json.loads(x)["text"] for x in open(HERE / "o200k_vectors.jsonl", encoding="utf-8")]
    out = [x for x in rng.sample(lines, 60) if len(x) < 600]
    out += ["", " ", "  ", "Hello", " Hello", "  Hello  world ", "the time we take e t", "a\n\nb\r\n c\t\td", "\n", "\n\n  \n x",
            "I'll don't HE'S it\u2019s \u017f 'S", "1234567 12 3.14 \u0663\u0664", "e\u0301 \u00e9 \uac00 \u1112\u1161",
            "<s>x</s>", "a<|begin|>b", " <|begin|> x <|end|>  y", "<unk> <0x0A>", "<tool>call</tool>",
            "xwordx word words word", "\u2581\u2581a \u2581", "\u180e\u0085\u00a0\u3000x", "\U0001F600\u200d\U0001F525 \ud7a3",
            "\u4f60\u597d\u4e16\u754c123\u304b\u30ab", "\u1c89\u1c8a \U00010d50", "\u0e2a\u0e27", "\x00\x01\x7f",
            "!!!" * 30, "ab" * 200, " " * 70, "<mask>  x<mask>", "a <mask> b"]
    for _ in range(60):
        n = rng.randint(1, 24)
        out.append("".join(chr(rng.choice([rng.randint(32, 126), rng.randint(0, 0x2fff),
                                           rng.randint(0xe000, 0x1ffff), 32, 10]))
                           for _ in range(n)).replace("\ud800", ""))
    return [t for t in out if not any(0xD800 <= ord(c) <= 0xDFFF for c in t)]


def write(name, root, all_flags=(0, 1, 3)):
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(root, ensure_ascii=False, indent=None, separators=(",", ":")) + "\n",
                    encoding="utf-8")
    tok = Tokenizer.from_file(str(path))
    with open(HERE / f"{name}.jsonl", "w", encoding="utf-8") as out:
        for text in texts():
            for flags in all_flags:
                tok.encode_special_tokens = not flags & 1
                ids = tok.encode(text, add_special_tokens=bool(flags & 2)).ids
                tok.encode_special_tokens = False
                out.write(json.dumps({"text": text, "flags": flags, "ids": ids,
                                      "decoded": tok.decode(ids, skip_special_tokens=False)}) + "\n")
    print(name, tok.get_vocab_size(), path.stat().st_size)


def byte_level(pre, ignore_merges, normalizer=None, size=1200):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus(), trainer)
    return tok


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def template(bos, bos_id, eos=None, eos_id=None):
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}
    if eos:
        single.append({"SpecialToken": {"id": eos, "type_id": 0}})
        special[eos] = {"id": eos, "ids": [eos_id], "tokens": [eos]}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def llama3():
    pre = pre_tokenizers.Sequence([split(LLAMA3), pre_tokenizers.ByteLevel(add_prefix_space=False,
                                                                           use_regex=False)])
    tok = byte_level(pre, True)
    tok.add_special_tokens(["<|begin|>", "<|end|>"])
    root = json.loads(tok.to_str())
    bos = tok.token_to_id("<|begin|>")
    root["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        template("<|begin|>", bos)]}
    write("llama3", root)


def gpt2():
    """Legacy merges, the built-in regex, added tokens with every flag."""
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), False, size=900)
    tok.add_special_tokens([AddedToken("<|end|>", special=True),
                            AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    tok.add_tokens([AddedToken("word", single_word=True, normalized=True),
                    AddedToken("<tool>", normalized=False), AddedToken("   ", normalized=False)])
    root = json.loads(tok.to_str())
    root["model"]["merges"] = [" ".join(m) for m in root["model"]["merges"]]
    write("gpt2", root, (0, 1))


def qwen():
    pre = pre_tokenizers.Sequence([split(QWEN), pre_tokenizers.ByteLevel(add_prefix_space=False,
                                                                         use_regex=False)])
    tok = byte_level(pre, False, normalizers.NFC())
    tok.add_special_tokens(["<|begin|>", "<|end|>"])
    write("qwen", json.loads(tok.to_str()), (0, 1))


def deepseek():
    pre = pre_tokenizers.Sequence([split(p) for p in DEEPSEEK]
                                  + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok = byte_level(pre, False)
    tok.add_special_tokens(["<\uff5cbegin\u2581of\u2581sentence\uff5c>"])
    write("deepseek", json.loads(tok.to_str()), (0, 1))


def sentence_pieces():
    """(vocab, merges) of a character-level BPE: <unk>, <s>, </s>, 256 bytes, then the pieces."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme="always")
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=1200, limit_alphabet=150,
                                                          show_progress=False))
    model = json.loads(tok.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    names += [t for t in sorted(model["vocab"], key=model["vocab"].get) if t not in names]
    return {t: i for i, t in enumerate(names)}, model["merges"]


def added(content, i):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def sentence_piece(name, normalizer, pre_tokenizer, decoder, fallback=True, crosses=False):
    vocab, merges = sentence_pieces()
    if crosses:  # a merge over the start of a word: texts must not be cut there
        vocab["e" + MARK], vocab["e" + MARK + "t"] = len(vocab), len(vocab) + 1
        merges = [["e", MARK], ["e" + MARK, "t"]] + merges
    if not fallback:
        vocab = {t: i for i, t in enumerate(t for t in vocab if not t.startswith("<0x"))}
    root = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(t, vocab[t]) for t in ("<unk>", "<s>", "</s>")],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": template("<s>", vocab["<s>"], "</s>", vocab["</s>"]), "decoder": decoder,
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                      "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                      "byte_fallback": fallback, "ignore_merges": False, "vocab": vocab,
                      "merges": merges}}
    write(name, root)


def metaspace(scheme, splits):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": splits}


def main():
    replace = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    tail = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    legacy = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": MARK},
        {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}
    llama3()
    gpt2()
    qwen()
    deepseek()
    sentence_piece("sp_legacy", legacy, None, {"type": "Sequence", "decoders": [replace, *tail, strip]})
    sentence_piece("sp_cross", legacy, None, {"type": "Sequence", "decoders": [replace, *tail, strip]},
                   crosses=True)
    sentence_piece("sp_first", None, metaspace("first", False),
                   {"type": "Sequence", "decoders": [replace, *tail, strip]})
    sentence_piece("sp_always", None, metaspace("always", True), metaspace("always", True), False)


if __name__ == "__main__":
    main()
