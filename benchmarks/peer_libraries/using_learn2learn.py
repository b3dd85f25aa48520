"""learn2learn, as in its examples: per task a clone, `adapt`, and backward of the query loss."""

from typing import Any

from torch.nn import functional as F

from benchmarks.peer_libraries.problem import Problem, Step, head_loss
from memmeta_exp.data.torchmeta_compat import import_torchmeta

# learn2learn imports torchvision, which beside a CPU build of torch does not import without the cure that torchmeta
# needs as well
l2l: Any = import_torchmeta("learn2learn")
LIBRARY = l2l


def _all_weights(problem: Problem, first_order: bool) -> Step:
    maml = l2l.algorithms.MAML(problem.model, lr=problem.settings.inner_lr, first_order=first_order)

    def step() -> None:
        for task in problem.tasks:
            learner = maml.clone()
            for _ in range(problem.settings.inner_steps):
                learner.adapt(F.cross_entropy(learner(task.x_s), task.y_s))
            loss = F.cross_entropy(learner(task.x_q), task.y_q)
            (loss / len(problem.tasks)).backward()

    return step


def maml(problem: Problem) -> Step:
    return _all_weights(problem, first_order=False)


def fomaml(problem: Problem) -> Step:
    return _all_weights(problem, first_order=True)


def anil(problem: Problem) -> Step:
    """ANIL and ITD-BiO: computes the features once, and adapts the head on them."""
    s, features = problem.settings, problem.model.features
    head = l2l.algorithms.MAML(problem.model.head, lr=s.inner_lr)

    def step() -> None:
        for task in problem.tasks:
            learner = head.clone()
            z_s, z_q = features(task.x_s), features(task.x_q)
            for _ in range(s.inner_steps):
                learner.adapt(head_loss(learner, z_s, task.y_s, s.mu))
            (F.cross_entropy(learner(z_q), task.y_q) / len(problem.tasks)).backward()

    return step


ALGORITHMS = {"maml": maml, "fomaml": fomaml, "anil": anil, "itd_bio": anil}
