"""The audit inside an unlearning: it needs the forget set and the old model, and both are gone a moment later.

What stays are figures and a certificate; both are written with the new version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.auditing.audit import Auditor, Cost, require_oracle, train_oracle
from retract.auditing.case import Case, Version
from retract.auditing.certificate import CertifiedRequest, Statement, sign
from retract.auditing.shadows import Shadows, imitations
from retract.data.digest import retained_digest
from retract.errors import ConfigError, FederationError
from retract.stores.audits import STEP_AUDITS
from retract.stores.folder import STEP_CERTIFICATE
from retract.stores.forgetting import Forgotten
from retract.stores.held import MEMORY, MODEL, Held, state_digests
from retract.stores.versions import CERTIFICATES
from retract.stores.withdrawing import Step
from retract.systems.abilities import learnt_from
from retract.systems.base import Progress, no_progress


class Auditing:
    """A judge of forgetting that audits it and certifies it (`retract.stores.forgetting.Judge`).

    Parameters
    ----------
    key
        Gives what certificates are signed with; called when there is something to sign, for it may make the key.
    oracle
        Whether to train the oracle and two shadow models: three trainings. Without them only the plain attacks run.
    given
        A model to take as the oracle instead; it must have been trained alike, on what is retained.
    """

    def __init__(
        self,
        key: Callable[[], Ed25519PrivateKey],
        *,
        oracle: bool = False,
        given: Held | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.key, self.given, self.progress = key, given, progress
        self.oracle = oracle or given is not None
        self.audits: list[dict[str, Any]] = []
        self.name: str | None = None
        self.certificate: bytes | None = None

    def __call__(self, forgotten: Forgotten) -> Mapping[str, bytes]:
        """Audit every withdrawal, sign, and return both files.

        Raises
        ------
        ConfigError
            If the given oracle is none of this unlearning, or would have to be that of two withdrawals.
        DataError
            If no oracle can be trained on what is retained.
        FederationError
            If an oracle has to be trained with devices that are elsewhere.
        """
        if self.given is not None and len(forgotten.steps) > 1:
            raise ConfigError(
                "an oracle folder is that of one withdrawal, and both erasures and unsharings are pending: "
                "let --oracle train one for each"
            )
        if self.oracle:
            _require_devices(forgotten.before)
        self.name = name = f"{CERTIFICATES}/{uuid4()}.json"
        self.audits = [{**self._audit(step), "certificate": name} for step in forgotten.steps]
        self.certificate = sign(self._statement(forgotten), self.key())
        told = {"certificate": name, "audits": self.audits}
        return {STEP_AUDITS: json.dumps(told).encode(), STEP_CERTIFICATE: self.certificate}

    @property
    def fields(self) -> dict[str, Any]:
        """For people and scripts: the audit, or the first of them where things were erased and others unshared.

        The certificate's name is that within the folder. Where the model had learnt nothing of what was withdrawn there
        is no audit, and a certificate all the same.
        """
        return {"audit": self.audits[0] if self.audits else None, "audits": self.audits, "certificate": self.name}

    def _audit(self, step: Step) -> dict[str, Any]:
        system, seed = step.before.system, step.before.trained.seed
        case = Case(system, step.kind, step.forget, _version(step.before), step.after.test, seed, step.before.test)
        after, sharing = _version(step.after), step.after.sharing
        oracle: tuple[Version, Cost | None] | None = None
        shadows = None
        if self.given is not None:
            oracle = (_version(self.given), None)
            require_oracle(case, after, oracle[0])  # before it is read as if it were one
        elif self.oracle:
            oracle = train_oracle(case, sharing, self.progress)
        if self.oracle:
            pair = imitations(sharing, step.kind, step.forget, seed)
            here = step.before.devices is not None
            shadows = Shadows.trained(system, step.kind, pair, step.before.test, seed, self.progress, read_devices=here)
        auditor = Auditor(case, oracle, shadows, relearn=self.oracle)
        return auditor.judge(after, Cost(step.seconds, step.bytes_sent, step.rounds, step.updates)).to_json()

    def _statement(self, forgotten: Forgotten) -> Statement:
        trained = forgotten.after.trained
        before, after = state_digests(forgotten.before.trained), state_digests(trained)
        return Statement(
            requests=tuple(CertifiedRequest.of(request) for request in forgotten.batch.requests),
            system=trained.system,
            settings=trained.config.model_dump(mode="json"),
            seed=trained.seed,
            method=f"retract {trained.system}",
            model_before=before[MODEL],
            model_after=after[MODEL],
            memory_after=after[MEMORY],
            retained=retained_digest(trained.shared),
            n_retained=len(trained.shared),
            figures={audit["kind"]: audit for audit in self.audits},
        )


def _require_devices(held: Held) -> None:
    """Refuse to train an oracle where the devices that would learn with it are elsewhere."""
    if held.devices is None and learnt_from(held.system.server, "erase") == "everything":
        raise FederationError(
            f"an oracle of {held.trained.system} is trained where the devices are, and their half is not here: "
            "audit without the oracle"
        )


def _version(held: Held) -> Version:
    return Version(held.trained, held.devices)
