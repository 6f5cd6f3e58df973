"""The audit inside an unlearning: it needs the forget set and the old model, and both are gone a moment later.

What stays in the folder is `audits.jsonl`, figures only, and a certificate; both are written with the new state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.audit.audit import Auditor, Cost, require_oracle, train_oracle
from retract.audit.case import Case, Version
from retract.audit.certificate import CERTIFICATES, MEMORY, MODEL, CertifiedRequest, Statement, retained_digest, sign
from retract.audit.shadows import Shadows, imitations
from retract.errors import ConfigError
from retract.systems import folder as folders
from retract.systems.base import Progress, no_progress
from retract.systems.folder import TrainedFolder, state_digests
from retract.systems.lifecycle import Applied, Step

AUDITS = "audits.jsonl"


class Auditing:
    """A witness of unlearning that audits it and certifies it (`retract.systems.lifecycle.Witness`).

    Parameters
    ----------
    folder
        The trained folder.
    key
        What certificates are signed with.
    oracle
        Whether to train the oracle and two shadow models: three trainings. Without them only the plain attacks run.
    oracle_folder
        A trained folder to take as the oracle instead; it must have been trained alike, on what is retained.
    """

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey,
        *,
        oracle: bool = False,
        oracle_folder: Path | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.folder, self.key, self.progress = folder, key, progress
        self.oracle = oracle or oracle_folder is not None
        self.given = None if oracle_folder is None else folders.load(oracle_folder)
        self.audits: list[dict[str, Any]] = []
        self.certificate: Path | None = None

    def __call__(self, applied: Applied) -> Mapping[str, bytes]:
        """Audit every withdrawal, sign, and return both files.

        Raises
        ------
        ConfigError
            If the given oracle is none of this unlearning, or would have to be that of two withdrawals.
        DataError
            If no oracle can be trained on what is retained.
        """
        if self.given is not None and len(applied.steps) > 1:
            raise ConfigError(
                "an oracle folder is that of one withdrawal, and both erasures and unsharings are pending: "
                "let --oracle train one for each"
            )
        name = f"{CERTIFICATES}/{uuid4()}.json"
        self.audits = [{**self._audit(step), "certificate": name} for step in applied.steps]
        self.certificate = self.folder / name
        records = [*folders.read_lines(self.folder, AUDITS), *self.audits]
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        return {AUDITS: lines, name: sign(self._statement(applied), self.key)}

    @property
    def fields(self) -> dict[str, Any]:
        """For the command's JSON: the audit, or the first of them where things were erased and others unshared."""
        audit = self.audits[0] if self.audits else None
        certificate = None if self.certificate is None else str(self.certificate)
        return {"audit": audit, "audits": self.audits, "certificate": certificate}

    def _audit(self, step: Step) -> dict[str, Any]:
        system, seed = step.before.system, step.before.trained.seed
        case = Case(system, step.kind, step.forget, _version(step.before), step.after.test, seed, step.before.test)
        after = _version(step.after)
        oracle: tuple[Version, Cost | None] | None = None
        shadows = None
        if self.given is not None:
            oracle = (_version(self.given), None)
            require_oracle(case, after, oracle[0])  # before it is read as if it were one
        elif self.oracle:
            oracle = train_oracle(case, after.clients, self.progress)
        if self.oracle:
            pair = imitations(after.clients.sharing, step.kind, step.forget, seed)
            shadows = Shadows.trained(system, step.kind, pair, step.before.test, seed, self.progress)
        auditor = Auditor(case, oracle, shadows, relearn=self.oracle)
        return auditor.judge(after, Cost(step.seconds, step.bytes_sent)).to_json()

    def _statement(self, applied: Applied) -> Statement:
        trained = applied.saved.trained
        digests = state_digests(trained)
        return Statement(
            requests=tuple(CertifiedRequest.of(request) for request in applied.requests),
            system=trained.system,
            settings=trained.config.model_dump(mode="json"),
            seed=trained.seed,
            method=f"retract {trained.system}",
            model_before=applied.saved.manifest.files[MODEL],
            model_after=digests[MODEL],
            memory_after=digests[MEMORY],
            retained=retained_digest(trained.shared),
            n_retained=len(trained.shared),
            figures={audit["kind"]: audit for audit in self.audits},
        )


def audits_of(folder: Path) -> list[dict[str, Any]]:
    """The audits done so far, oldest first; errors as in `retract.systems.folder.load`."""
    return folders.read_lines(folder, AUDITS)


def _version(held: TrainedFolder) -> Version:
    return Version(held.trained, held.clients)
