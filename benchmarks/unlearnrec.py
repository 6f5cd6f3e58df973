"""UnlearnRec against its oracle: every backbone, forward pass alone and with fine-tuning, on ML-1M and Gowalla.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.unlearnrec --seeds 0,1,2
    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.unlearnrec --data gowalla --seeds 0
    .venv/bin/python -m benchmarks.unlearnrec --show

Every row is one audit and one JSON line in --out, written as it is measured; a second call skips what is there. What is
compared shares its model: one training and one pre-training for a backbone and a seed, one oracle and one pair of
shadow models for a forget set. Trained backbones are kept in --work with the seconds that they took, so that another
encoder is measured against the same ones. On Gowalla there are no shadow models, and the attack is that of the plain
score.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.common import mean_and_spread, source
from retract import streams
from retract.auditing.audit import Auditor, Cost, train_oracle
from retract.auditing.case import Case, Version
from retract.auditing.cell import train, unlearn
from retract.auditing.forget_sets import ForgetSet
from retract.auditing.shadows import Shadows, imitations
from retract.data import Dataset, Interactions, Sharing, load
from retract.models.learn import backbones, graph, lightgcn, losses, pairwise, sparse
from retract.stores.local import engine_of, withdraw
from retract.systems import backbone, backbone_training
from retract.systems.backbone import BackboneConfig
from retract.systems.base import Checkpoint, Keep, Progress, Stopwatch, Trained, with_settings
from retract.systems.checks import prepared
from retract.systems.registry import make_method
from retract.systems.system import System
from retract.systems.unlearnrec import UNLEARNREC, UnlearnRecConfig
from retract.systems.unlearnrec.server import UnlearnRecServer

BACKBONES = ("lightgcn", "sgl", "simgcl")
FORGET = ("random:0.05", "users:0.01")
FINETUNE = {"finetune_steps": 8}
SETTINGS: Mapping[str, Mapping[str, Any]] = {"ml-1m": {}, "gowalla": {"epochs": 20, "batch": 16384, "rate": 0.02}}
AUC = ("attack_auc_before", "attack_auc_after", "attack_auc_oracle")


def _training_code() -> str:
    """Digest of the code that a trained backbone comes from: after a change nothing old is read."""
    digest = hashlib.blake2b(digest_size=4)
    for module in (backbones, graph, lightgcn, losses, pairwise, sparse, backbone, backbone_training, streams):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


class Remembered(UnlearnRecServer):
    """UnlearnRec's server whose trained backbones are kept in a folder.

    `seconds` is what the last one took when it was made, `waited` what it took now.
    """

    def __init__(self, config: UnlearnRecConfig, folder: Path) -> None:
        super().__init__(config)
        self.folder, self.code, self.seconds, self.waited = folder, _training_code(), 0.0, 0.0

    def fitted(
        self, config: UnlearnRecConfig, shared: Interactions, start: Checkpoint, keep: Keep, progress: Progress
    ) -> Trained:
        """Train, or read what the same settings, data and seed have given before."""
        settings, now = config.model_dump_json(include=set(BackboneConfig.model_fields)), Stopwatch()
        digest = hashlib.blake2b(shared.keys.tobytes() + f"{settings}{start.seed}".encode(), digest_size=12).hexdigest()
        path = self.folder / f"{digest}-{self.code}.safetensors"
        if not path.exists():
            watch = Stopwatch()
            nodes = self.nodes(super().fitted(config, shared, start, keep, progress))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"nodes": nodes, "seconds": np.array(watch.seconds)}, path)
        kept = load_file(path)
        done = replace(start, done=config.epochs, tables={"nodes": kept["nodes"]})
        trained = super().fitted(config, shared, done, keep, progress)
        self.seconds, self.waited = float(kept["seconds"]), now.seconds
        return trained


def remembered(config: UnlearnRecConfig, folder: Path) -> tuple[System, Remembered]:
    """UnlearnRec with such a server, and the server."""
    system, server = UNLEARNREC(config), Remembered(config, folder)
    system.__dict__["server"] = server
    return system, server


def measured(
    dataset: Dataset, name: str, chosen: str, seed: int, forgets: list[str], encoder: str, work: Path
) -> Iterator[dict[str, Any]]:
    """The rows of one model."""
    config = UnlearnRecConfig.model_validate({"backbone": chosen, "encoder": encoder, **SETTINGS[name]})
    system, server = remembered(config, work)
    part, test = dataset.split(seed=seed)
    sharing = Sharing.by_ratio(part, 1.0, seed)
    plain, _ = train(system, sharing, seed)
    training = server.seconds
    ready, preparing = prepared(system.server, plain.trained, engine_of(system, plain.devices), seed=seed)
    if encoder == "calibrated":
        preparing += server.seconds - server.waited  # the twin may have been read
    variants: dict[str, tuple[System, Version]] = {
        "forward": (system, replace(plain, trained=ready)),
        "fine-tuned": (system, replace(plain, trained=with_settings(ready, **FINETUNE))),
        "naive": (make_method("naive", system), plain),
    }
    for text in forgets:
        forget = ForgetSet.parse(text).drawn(sharing, sharing, "unshare", seed)
        case = Case(system, "unshare", forget, plain, test, seed)
        assert plain.devices is not None
        retained = withdraw(plain.devices, "unshare", forget)[0].sharing
        oracle, _ = train_oracle(case, retained)
        oracle_cost = Cost(server.seconds, 0, 0)
        shadows = None
        if name != "gowalla":
            pair = imitations(retained, "unshare", forget, seed)
            shadows = Shadows.trained(system, "unshare", pair, test, seed)
        auditor = Auditor(case, (oracle, oracle_cost), shadows)
        for variant, (method, before) in variants.items():
            after, spent = unlearn(method, before, "unshare", forget, seed)
            yield {
                "data": name,
                "backbone": chosen,
                "encoder": encoder,
                "variant": variant,
                "forget": text,
                "seed": seed,
                "threads": torch.get_num_threads(),
                "train_seconds": round(training, 1),
                "prepare_seconds": round(preparing, 1),
                **auditor.judge(after, spent).flat(),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m", choices=tuple(SETTINGS))
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--encoder", default="calibrated")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/unlearnrec.jsonl"))
    parser.add_argument("--work", type=Path, default=Path(".bench/unlearnrec"))
    parser.add_argument("--show", action="store_true", help="only print the tables of what is measured")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.show:
        show(rows)
        return
    done = {(row["data"], row["backbone"], row["encoder"], row["seed"], row["forget"]) for row in rows}
    dataset = load(source(options.data))
    for chosen in options.backbones.split(","):
        for seed in (int(part) for part in options.seeds.split(",")):
            key = (options.data, chosen, options.encoder, seed)
            missing = [forget for forget in FORGET if (*key, forget) not in done]
            if missing:
                for row in measured(dataset, options.data, chosen, seed, missing, options.encoder, options.work):
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    """Print mean ± deviation over the seeds as Markdown tables."""
    heads = ["data, backbone, encoder, forget set, variant", "seeds", "AUC before", "after", "oracle", "gap, worst"]
    heads += ["Recall ratio, worst", "MI-BF", "MI-NG off by", "times faster, least", "trained in s", "prepared in s"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    groups = dict.fromkeys((r["data"], r["backbone"], r["encoder"], r["forget"], r["variant"]) for r in rows)
    for key in groups:
        of = [r for r in rows if (r["data"], r["backbone"], r["encoder"], r["forget"], r["variant"]) == key]
        gap = [abs(r["attack_auc_after"] - r["attack_auc_oracle"]) for r in of]
        ratio = [r["recall@20_after"] / r["recall@20_oracle"] for r in of]
        faster = [r["oracle_seconds"] / r["seconds"] for r in of]
        cells = [
            ", ".join(key),
            str(len(of)),
            *(mean_and_spread([r[name] for r in of]) for name in AUC),
            f"{mean_and_spread(gap)}, {max(gap):.4f}",
            f"{mean_and_spread(ratio)}, {min(ratio):.4f}",
            mean_and_spread([r["mi_bf_after"] for r in of]),
            f"{max(abs(r['mi_ng_after'] - r['mi_ng_oracle']) for r in of):.4f}",
            f"{min(faster):.0f}",
            mean_and_spread([r["train_seconds"] for r in of]),
            mean_and_spread([r["prepare_seconds"] for r in of]),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
