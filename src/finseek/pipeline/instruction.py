"""The stages of a run that learns from instruction data alone: its samples, and its evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from finseek.core.artifacts import atomic_folder, write_json, write_lines
from finseek.core.errors import ArtifactError, InputError
from finseek.pipeline.data import SAMPLE_FILES, copy_tokenizer, keep_evenly, samples_of
from finseek.pipeline.stages import StageContext


def convert_the_instructions(context: StageContext) -> dict[str, Any]:
    """Stage ``samples``: rows to conversations, split before they are joined, and the tokenizer."""
    from finseek.samples import Encoder, train_split_tokenizer, write_samples
    from finseek.samples.conversations import TOO_LONG, iterate_conversations, leave_out_long
    from finseek.samples.instruct_convert import convert_instructions

    config, folder = context.config, context.paths.samples
    options, prompt = config.instruct, config.prompt
    assert options is not None
    with atomic_folder(folder) as partial:
        made = partial / "conversations"
        summary = convert_instructions(options.source, made, options, context.progress)
        if summary["kept"] + summary["rejected"] != summary["found"]:
            raise ArtifactError(f"instructions do not reconcile: {summary['found']} found, {summary['kept']} kept")
        files = {split: partial / f"{name}.jsonl" for split, name in SAMPLE_FILES.items()}
        for file in files.values():
            write_samples(file, iterate_conversations(made / file.name))
        if config.tokenizer:
            copy_tokenizer(config.tokenizer, partial / "tokenizer")
        else:
            train_split_tokenizer(files["train"], partial / "tokenizer", prompt)
        rejects = (made / "rejects.jsonl").read_bytes().splitlines()
        left = dict.fromkeys(files, 0)
        if options.max_tokens:
            encoder = Encoder(partial / "tokenizer", prompt.template)
            for split, file in files.items():
                long = leave_out_long(file, encoder, options.max_tokens)
                left[split] = len(long)
                rejects += [orjson.dumps({"reason": TOO_LONG, "split": split, "raw": row.input}) for row in long]
        write_lines(partial / "rejects.jsonl", rejects)
        summary["conversations_left_out"] = {TOO_LONG: left}
        counts = {split: summary["conversations"][split] - left[split] for split in files}
        if prompt.max_samples:
            counts = {split: keep_evenly(file, prompt.max_samples) for split, file in files.items()}
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise InputError(
                f"instruct.source {options.source} leaves nothing for {empty[0]}: give more rows, or raise"
                " instruct.validation_fraction, instruct.test_fraction or instruct.max_tokens"
            )
        write_json(partial / "summary.json", {**summary, "samples": counts})
        for file in made.iterdir():
            file.unlink()
        made.rmdir()
    return {name: summary[name] for name in ("found", "kept", "rejected")} | {
        **counts,
        "conversations_left_out": sum(left.values()),
    }


def evaluate_the_instructions(context: StageContext) -> dict[str, Any]:
    """Stage ``evaluate``: how surprised the model is by the answers of the test split, beside two baselines."""
    from finseek.evaluate import load_backend
    from finseek.evaluate.instruction import score_instructions, write_rows
    from finseek.samples import Encoder, load_samples

    config, paths = context.config, context.paths
    samples = load_samples(samples_of(paths, "test"))

    def backend(checkpoint: Path) -> Any:
        return load_backend(
            config.evaluate, checkpoint, config.prompt.answer_order, config.run.seed, config.prompt.template
        )

    base = config.model.path if config.model else None
    untrained, reason = None, "training began with random weights"
    if base is not None:
        same = (base / "tokenizer.json").is_file()
        untrained, reason = (backend(base), "") if same else (None, f"{base} holds no tokenizer.json")
    rows, metrics = score_instructions(
        samples,
        load_samples(samples_of(paths, "train")),
        backend(paths.train / "checkpoint"),
        Encoder(paths.samples / "tokenizer", config.prompt.template),
        config.evaluate,
        untrained=untrained,
        seed=config.run.seed,
        progress=context.progress,
    )
    if reason:
        metrics["baselines_left_out"] = {"before_training": reason}
    write_rows(paths.evaluate / "eval_results.csv", rows)
    write_json(paths.evaluate / "metrics.json", metrics)
    return {"answers": len(rows), "answer_tokens": metrics["answer_tokens"]}
