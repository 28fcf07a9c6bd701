"""Sample records for the tests of the reports, and for looking at them: nothing here is a measurement."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from lemmata.reports import Arm, Claim, Figure, Point, Study, Surface, evidence, render

STATEMENT = r"""Let $L(theta) = 1/2 theta^top H theta$ with $H succ.eq 0$, and let gradient descent take steps of size $eta > 0$. Then the iterates
converge from every start if and only if

$ lambda_"max" (H) < 2/eta, quad "and" quad norm(theta_t)_2 <= abs(1 - eta lambda_"max")^t norm(theta_0)_2. $

For heavy ball with momentum $beta in [0, 1)$ the threshold is $(2 + 2 beta) \/ eta$ @polyak1964methods."""

HEAVY = r"""With $Sigma = EE[x x^top]$, $bold(v) tilde cal(N)(0, I_n)$ and $f in C^2(RR^n; RR)$,

$ "tr"(H) = EE_bold(v) [bold(v)^top H bold(v)], quad "Var"[bold(v)^top H bold(v)] = cases(2 norm(H)_F^2 & "Gaussian", 2 sum_(i != j) H_(i j)^2 & "Rademacher") $

$ integral_0^oo (sqrt((lambda_+ - lambda)(lambda - lambda_-)))/(2 pi gamma lambda) dif lambda = product_(k=1)^n (1 + x_k/k!) quad mat(a, b; c, d) vec(x, y) -> arrow(u) times.o hat(w)' $

- the first item costs `$5`, not $5 n$;
- *Bold*, _emphasis_ and `code` stay as they are. See @avron2011randomized."""


def point(label: str, measured: float, half: float, low: float, high: float, outcome: str, n: int = 12) -> Point:
    """A point with a symmetric interval."""
    return Point(
        label, n, f"between {low:g} and {high:g}", measured, measured - half, measured + half, low, high, outcome
    )


@cache
def line(claim_id: str = "sharpness") -> Figure:
    """A figure drawn by hand, with its data."""
    steps = list(range(0, 400, 4))
    sharpness = [100 * (1 - math.exp(-step / 90)) + 2.5 * math.sin(step / 3) * (step > 250) for step in steps]

    def draw(ax):
        ax.plot(steps, sharpness, label="sharpness $\\lambda_\\mathrm{max}$")
        ax.axhline(100, color="#D55E00", linestyle="--", label="$2/\\eta$")
        ax.set_xlabel("step")
        ax.set_ylabel("sharpness")
        ax.legend()
        return {"step": steps, "sharpness": sharpness}

    return render(
        draw,
        claim_id,
        "Sharpness rises to the threshold and stays near it.",
        "A rising curve that levels off at the dashed line 100.",
    )


def bowl(size: int = 41) -> Surface:
    """A loss surface with one missing value."""
    grid = [2 * index / (size - 1) - 1 for index in range(size)]
    z = [[1.5 * x * x + 0.6 * y * y + 0.35 * math.sin(5 * x + 2) * math.cos(4 * y) for x in grid] for y in grid]
    z[0][0] = math.nan
    return Surface(
        "bowl",
        "The loss on the plane of the two leading eigenvectors.",
        "A curved valley with two dips.",
        "first eigenvector",
        "second eigenvector",
        "loss",
        grid,
        grid,
        z,
    )


def claim(**changes: object) -> Claim:
    """A supported claim with a control, two figures and a few points; some fields changed."""
    return replace(_claim(), **changes)  # type: ignore[arg-type]


@cache
def _claim() -> Claim:
    arm = Arm(
        "",
        "",
        "holds",
        "",
        tuple(
            point(f"eta = {eta:g}", 2 / eta * 1.01, 0.04 / eta, 1.9 / eta, 2.1 / eta, "holds")
            for eta in (0.01, 0.02, 0.05, 0.1)
        ),
    )
    rounded = tuple(
        replace(one, measured=one.measured * 1.6, low=one.low * 1.5, high=one.high * 1.7, outcome="fails")
        for one in arm.points
    )
    controls = (
        Arm(
            "cross-entropy in place of squared loss",
            'loss = "cross_entropy"',
            "fails",
            "every point is outside its band",
            rounded,
        ),
    )
    return Claim(
        id="edge_of_stability",
        title="Gradient descent trains at the edge of stability",
        statement=STATEMENT,
        sources=("cohen2021edge", "goh2017momentum"),
        prediction="the median sharpness of the last quarter of training is within 5 % of 2/η, at every step size",
        verdict="SUPPORTED",
        reason="all 4 points are inside their bands and every control fails",
        expected="SUPPORTED",
        headline="1.010 ± 0.020 times 2/η",
        arm=arm,
        controls=controls,
        figures=(line(), evidence("edge_of_stability", arm, controls, "within 5 % of 2/η")),
        power="a near miss (1.5 × the band) is found with probability 0.97 at these sizes",
        command="lemmata run curvature/edge_of_stability --claim edge_of_stability --profile quick",
        trials=96,
        failed=(),
        stale=False,
        seconds=41.3,
        switch="",
    )


@cache
def study() -> Study:
    """Four claims: one of each kind of trouble."""
    tiny = tuple(
        Point(
            f'width = {2**k}, depth = {k}, activation = "tanh"',
            5,
            "at most 4 c √m ε κ",
            2.0**-50 * k,
            0.0,
            2.0**-49 * k,
            -math.inf,
            1e-13,
            "holds",
        )
        for k in range(1, 21)
    )
    wild = (
        Point("width = 2", 5, "at most 1e-13", math.inf, 3.0, math.inf, -math.inf, 1e-13, "fails"),
        Point("width = 4", 5, "at most 1e-13", math.nan, math.nan, math.nan, -math.inf, 1e-13, "fails"),
    )
    trace = claim(
        id="hutchinson_variance_of_the_rademacher_estimator_against_the_gaussian_one_at_equal_cost",
        title="Hutchinson's estimator has the variance of the off-diagonal",
        statement=HEAVY,
        sources=("hutchinson1989stochastic", "avron2011randomized"),
        verdict="INCONCLUSIVE",
        reason="the control “diagonal matrix” is undecided at width = 4",
        headline="3.1 × 10⁻¹⁴ at most",
        arm=Arm("", "", "holds", "", tiny),
        controls=(Arm("a matrix with noise", "noise = 0.1", "fails", "not finite", wild),),
        figures=(),
        failed=("width = 4, k = 3: the loss is nan",),
        stale=True,
    )
    depends = claim(
        id="flat_minima",
        title="Flat minima generalise",
        sources=("dinh2017sharp", "keskar2017largebatch"),
        verdict="DEPENDS",
        switch="measure",
        reason="holds at measure = 0, fails at measure = 1",
        figures=(bowl(),),
        expected="DEPENDS",
        statement="Sharpness $lambda_max$ and the *adaptive* sharpness disagree under $theta_1 -> alpha theta_1$.",
    )
    refuted = claim(
        id="plain_words",
        title="A claim in plain words costs $5 & <b>more</b>",
        statement="Prose by a user: it costs $5, is #1, at @home, with a _stray underscore and a < b.",
        sources=(),
        verdict="REFUTED",
        expected="SUPPORTED",
        reason="3 of 4 points are outside their bands",
    )
    environment = (
        ("lemmata", "0.1.0"),
        ("python", "3.11.7"),
        ("torch", "2.13.0+cpu"),
        ("processor", "Example CPU @ 2.00GHz"),
        ("workers", "2, one torch thread each"),
        ("ledger sha256", "9f" * 32),
    )
    return Study(
        "curvature/edge_of_stability",
        "Curvature at the edge of stability",
        "We measure the top Hessian eigenvalue $lambda_max$ along full-batch gradient descent on handwritten digits @alpaydin1998digits and compare it with $2 \\/ eta$.",
        (claim(), trace, depends, refuted),
        environment,
        "2026-11-23",
        "quick",
    )
