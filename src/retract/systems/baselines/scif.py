"""SCIF: one Newton step on selected embeddings, by an influence function (Li et al., arXiv 2304.10199)."""

from __future__ import annotations

from retract.federation import Engine
from retract.models.nodes import without_isolated
from retract.systems.base import Progress, ServerSide, Stopwatch, Trained, Withdrawal, no_progress
from retract.systems.baselines.config import ScifConfig
from retract.systems.baselines.wrapper import Wrapper, differentiable, recorded
from retract.systems.checks import require_extra


class Scif(Wrapper):
    """Selective and collaborative influence function (SCIF; Li et al., arXiv 2304.10199).

    With θ the trained table, the minimum over S∖R lies, to first order, one Newton step away,

        θ' = θ - (H + λI)^{-1} ( ∇L_{S∖R}(θ) - ∇L_S(θ) ),    H = ∇²L_{S∖R}(θ).

    The paper's are the influence function (Koh and Liang, ICML 2017), the step restricted to selected embeddings,
    those of the target and of its collaborators, and the solution without ever forming H. That the graph changes with
    R is IFRU's (Zhang et al., arXiv 2307.02147): the right-hand side b is the difference of the *whole* losses, each
    on its own graph, not the loss of R's edges alone. Where θ is optimal for S it is ∇L_{S∖R}(θ) itself; we subtract
    ∇L_S because training ends near an optimum, not at it, and what is left of it there is no influence of R. Ours too:

    - The loss is not convex. The damping λ is a part of |bᵀHb| / bᵀb, so that one setting fits losses of any scale,
      and conjugate gradients stop at the first direction that does not curve up, or where the step grows too long for
      its quadratic model to hold (Steihaug, SIAM J. Numer. Anal. 1983).
    - Of the neighbours, whose number soon comes near that of all nodes, those with the greatest right-hand side move
      (IFRU prunes by importance in the same spirit).
    - A node that lost its last edge has no term left but L2: it goes to the minimum of that, zero.

    Only the server's table moves; tables that a system aggregates from clients have no loss on the server and stay.

    Parameters
    ----------
    server
        The half of the system to unlearn from.
    settings
        How the step is found.

    Raises
    ------
    ConfigError
        If the system fits no table by gradients.
    """

    name = "scif"
    settings: ScifConfig

    def __init__(self, server: ServerSide, settings: ScifConfig) -> None:
        super().__init__(server, settings)
        self._differentiable = differentiable(self.name, server)

    def unlearn(
        self,
        trained: Trained,
        withdrawal: Withdrawal,
        engine: Engine,
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> Trained:
        """One step; the clients are not asked."""
        require_extra(self.name, "learn", "torch")
        from retract.systems.baselines.gradients import newton_step

        watch, forget = Stopwatch(), withdrawal.forget
        retained, nodes = trained.shared - forget, self._differentiable.nodes(trained)
        if len(forget) and len(retained):
            step = newton_step(self._differentiable, nodes, retained, forget, self.settings, seed, progress)
            nodes = nodes - step
        nodes = without_isolated(nodes, retained, forget)
        result = self._differentiable.with_nodes(trained, nodes, retained)
        return recorded(result, self.name, withdrawal, watch, trained.config)
