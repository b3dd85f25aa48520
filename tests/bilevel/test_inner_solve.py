import torch

from memmeta_exp.bilevel import SoftmaxHead, gradient_descent, newton

T, N, D, C, MU = 4, 10, 6, 5, 0.05


def head(generator, dtype=torch.float64, scale=3.0) -> SoftmaxHead:
    z = scale * torch.randn(T, N, D, dtype=dtype, generator=generator)
    return SoftmaxHead(z, torch.arange(N).remainder(C).expand(T, N), C, MU)


def start(generator, dtype=torch.float64, scale=1.0):
    return (scale * torch.randn(T, C, D + 1, dtype=dtype, generator=generator),)


def solve_newton(g: SoftmaxHead, at, tolerance=1e-12, steps=50):
    return newton(g.value, g.grad, g.inverse, at, steps=steps, tolerance=tolerance)


def test_newton_is_gd_at_convergence(generator) -> None:
    g, at = head(generator, scale=1.0), start(generator)
    exact = solve_newton(g, at)
    slow = gradient_descent(g.grad, at, steps=4000, step_size=1 / g.smoothness(), tolerance=1e-9)
    assert exact.converged.all()
    assert slow.converged.all()
    assert exact.value[0].abs().max() > 0.1
    assert torch.allclose(exact.value[0], slow.value[0], atol=1e-7)


def test_newton_reaches_the_minimum_from_far_away(generator) -> None:
    g = head(generator)
    found = solve_newton(g, start(generator, scale=100.0))
    assert found.converged.all()
    assert (g.grad(found.value)[0].flatten(1).norm(dim=1) <= 1e-12).all()


def test_newton_in_float32_reaches_its_tolerance(generator) -> None:
    g = head(generator, torch.float32)
    found = solve_newton(g, start(generator, torch.float32), tolerance=1e-4)
    assert found.converged.all()
    assert found.steps.max() <= 15


def test_a_solved_task_does_not_move(generator) -> None:
    g, at = head(generator), start(generator)
    exact = solve_newton(g, at).value[0]
    mixed = torch.where(torch.tensor([True, False, True, False])[:, None, None], exact, at[0])
    found = solve_newton(g, (mixed,), tolerance=1e-10)
    assert torch.equal(found.value[0][[0, 2]], exact[[0, 2]])
    assert found.steps[[0, 2]].tolist() == [0, 0]
    assert (found.steps[[1, 3]] > 0).all()


def test_newton_evaluates_g_at_the_start_and_once_a_trial(generator) -> None:
    """From near the minimum every first trial is taken: g once a step, and once at the start. From far away tasks
    backtrack, each by itself: what is passed on with each iterate is g there."""
    g, at = head(generator), start(generator)
    near = (solve_newton(g, at).value[0] + 1e-3,)
    asked: list[torch.Tensor] = []

    def value(phi):
        asked.append(g.value(phi))
        return asked[-1]

    found = newton(value, g.grad, g.inverse, near, steps=50, tolerance=1e-9)
    assert found.converged.all()
    assert len(asked) == 1 + found.steps.max()
    far = start(generator, scale=100.0)
    asked.clear()
    found = newton(value, g.grad, g.inverse, far, steps=50, tolerance=1e-9)
    assert len(asked) > 1 + found.steps.max(), "this case does not backtrack"
    mixed = (torch.cat([near[0][:2], far[0][2:]]),)
    alone = [solve_newton(one(g, t), (mixed[0][t, None],), 1e-9) for t in range(T)]
    together = solve_newton(g, mixed, 1e-9)
    assert together.steps.tolist() == [int(each.steps) for each in alone]
    assert torch.allclose(torch.cat([each.value[0] for each in alone]), together.value[0], atol=1e-12)


def one(g: SoftmaxHead, task: int) -> SoftmaxHead:
    return SoftmaxHead(g.z[task, None, :, :-1], g.labels[task, None], C, MU)


def test_a_missed_tolerance_is_reported(generator) -> None:
    g, at = head(generator), start(generator)
    assert not solve_newton(g, at, steps=1).converged.any()
    short = gradient_descent(g.grad, at, steps=3, step_size=1 / g.smoothness(), tolerance=1e-9)
    assert not short.converged.any()
    assert torch.allclose(short.residual, g.grad(short.value)[0].flatten(1).norm(dim=1))


def test_the_measured_step_descends_where_a_larger_one_climbs(generator) -> None:
    """The descent lemma: with 1 / L_g no step raises g, wherever it starts; with 20 / L_g some do (trap 1)."""
    g, at = head(generator, scale=6.0), start(generator, scale=0.1)

    def values(factor: float) -> torch.Tensor:
        step = factor / g.smoothness()
        return torch.stack(
            [g.value(gradient_descent(g.grad, at, steps=k, step_size=step).value) for k in range(0, 40, 2)]
        )

    assert (values(1.0).diff(dim=0) <= 1e-12).all()
    assert (values(20.0).diff(dim=0) > 1e-3).any()


def test_no_step_raises_the_objective(generator) -> None:
    """Large features, a saturated start, little curvature: full Newton steps overshoot, Armijo's never do."""
    for scale, mu in ((100.0, 0.1), (1000.0, 0.1), (1000.0, 1e-3)):
        z = scale * torch.randn(T, N, D, dtype=torch.float64, generator=generator)
        g = SoftmaxHead(z, torch.arange(N).remainder(C).expand(T, N), C, mu)
        at = start(generator)
        values = torch.stack([g.value(solve_newton(g, at, steps=k).value) for k in range(12)])
        assert (values.diff(dim=0) <= 1e-10 * values[:-1].abs()).all()


def test_large_features_are_solved_in_float32_from_a_calm_start(generator) -> None:
    z = 300.0 * torch.randn(T, 25, 64, generator=generator).abs() / 8
    g = SoftmaxHead(z, torch.arange(25).remainder(C).expand(T, 25), C, 1e-3)
    found = solve_newton(g, (g.regularizer_center(),), tolerance=1e-3, steps=40)
    assert found.converged.all()


def test_a_direction_that_is_not_finite_moves_nothing() -> None:
    """Task 0 is solved, task 1 cannot be: neither is touched by the NaN of its direction (0 * NaN is NaN)."""

    def inverse(phi):
        return lambda r: (torch.full_like(r[0], torch.nan),)

    at = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = newton(lambda p: p[0].square().sum(1) / 2, lambda p: p, inverse, (at,), steps=3, tolerance=1e-6)
    assert torch.equal(found.value[0], at)
    assert found.converged.tolist() == [True, False]
    assert found.residual.tolist() == [0.0, 5.0]


def test_gd_by_hand() -> None:
    """g = phi^2 / 2 in one dimension: phi <- (1 - lambda) phi."""
    found = gradient_descent(lambda p: p, (torch.tensor([[8.0]]),), steps=3, step_size=torch.tensor([0.5]))
    assert found.value[0].item() == 1.0
    assert found.residual.item() == 1.0
