"""Published theorems as executable claims: a trial that measures, a prediction that judges, a control that must fail."""

#: Every study of the lab, ``area/name``. Adding one is a file and a line here.
STUDIES: tuple[str, ...] = (
    "foundations/derivatives",
    "foundations/backpropagation",
    "foundations/cross_entropy",
    "architectures/mnist1d",
    "architectures/text",
    "architectures/memory",
    "architectures/dates",
    "architectures/graphs",
    "architectures/continuous_depth",
    "curvature/edge_of_stability",
    "curvature/stability_thresholds",
    "curvature/hutchinson_variance",
    "curvature/rescale_degeneracy",
    "curvature/random_matrices",
    "curvature/matrix_products",
    "curvature/quadrature",
    "approximation/depth",
    "approximation/polynomials",
    "approximation/regions",
    "invariance/translation",
    "invariance/optimizers",
    "invariance/flat_minima",
)
