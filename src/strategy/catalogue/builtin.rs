//! The parts of this crate.

mod reducers;

use super::{Catalogue, Parameter, ParameterKind, PartInfo, Values};
use crate::strategy::{
    client_objective::{FedDyn, FedNova, Plain, Proximal, QFedAvg, Scaffold},
    filter::{Everything, MaxNorm},
    local_work::{Same, TimeBudget},
    reducer::Bound,
    sampler::{ByCapacity, BySize, CohortSize, Poisson, RoundRobin, Uniform},
    server_optimizer::{Adagrad, Adam, Adaptive, Momentum, Sgd, Yogi},
    weighting::{self, Capped, Examples},
};

impl Default for Catalogue {
    fn default() -> Self {
        let catalogue = objectives(weightings(filters(works(samplers(Self::empty())))));
        optimizers(reducers::add(catalogue))
    }
}

fn samplers(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_sampler(
            sized(PartInfo::new(
                "uniform",
                "each client with the same probability",
            )),
            |values| Ok(Uniform::new(size(values))),
        )
        .with_sampler(
            sized(
                PartInfo::new("by_size", "clients with more examples more often")
                    .paper("Li et al. 2020, https://arxiv.org/abs/1907.02189"),
            ),
            |values| Ok(BySize::new(size(values))),
        )
        .with_sampler(
            sized(PartInfo::new(
                "by_capacity",
                "clients of fast workers more often",
            )),
            |values| Ok(ByCapacity::new(size(values))),
        )
        .with_sampler(
            PartInfo::new("round_robin", "each client once in a pass over all clients; the rounds of a pass are equal, and may be smaller than the fraction")
                .parameter(fraction()),
            |values| Ok(RoundRobin::new(values.number("fraction"))),
        )
        .with_sampler(
            PartInfo::new(
                "poisson",
                "each client by a draw of its own; goes with neither --goal nor --min-updates",
            )
            .paper("McMahan et al. 2018, https://arxiv.org/abs/1710.06963")
            .parameter(
                Parameter::share("probability", 0.1)
                    .about("the probability that a client takes part"),
            )
            .parameter(
                Parameter::new("secret", ParameterKind::Flag, Some(false.into()))
                    .about("true: workers can't foresee the draws, and two runs differ"),
            ),
            |values| {
                let poisson = Poisson::new(values.number("probability"));
                Ok(if values.flag("secret") {
                    poisson.secret()
                } else {
                    poisson
                })
            },
        )
}

fn fraction() -> Parameter {
    Parameter::share("fraction", 1.0).about("the share of the clients that a round waits for")
}

fn sized(info: PartInfo) -> PartInfo {
    let over_selection = Parameter::at_least("over_selection", 0.0, 0.0)
        .about("how many more clients train, as a share of those that the round waits for");
    info.parameter(fraction()).parameter(over_selection)
}

fn size(values: &Values) -> CohortSize {
    CohortSize {
        fraction: values.number("fraction"),
        over_selection: values.number("over_selection"),
    }
}

fn works(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_work(
            PartInfo::new("same", "each client trains with the job's settings"),
            |_| Ok(Same),
        )
        .with_work(
            PartInfo::new(
                "time_budget",
                "each client trains what its worker can in this time, and at most what the job says",
            )
            .parameter(
                Parameter::above("seconds", 0.0, 60.0).about("the time of a client's training"),
            ),
            |values| Ok(TimeBudget::new(values.number("seconds"))),
        )
}

fn filters(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_filter(PartInfo::new("none", "no report is left out"), |_| {
            Ok(Everything)
        })
        .with_filter(
            PartInfo::new(
                "norm",
                "reports are left out whose Euclidean norm is above `max_norm`",
            )
            .paper("Sun et al. 2019, https://arxiv.org/abs/1911.07963")
            .parameter(
                Parameter::above("max_norm", 0.0, 10.0)
                    .about("the largest norm of a report, over the trainable values of its delta"),
            ),
            |values| Ok(MaxNorm::new(Bound::Fixed(values.number("max_norm")))),
        )
        .with_filter(
            PartInfo::new(
                "median_norm",
                "reports are left out whose Euclidean norm is above `max_of_median` times the median of the round",
            )
            .paper("Sun et al. 2019, https://arxiv.org/abs/1911.07963")
            .parameter(
                Parameter::above("max_of_median", 0.0, 5.0)
                    .about("the largest norm of a report, in medians of the round's norms"),
            ),
            |values| {
                let factor = values.number("max_of_median");
                Ok(MaxNorm::new(Bound::OfMedian(factor)))
            },
        )
}

fn weightings(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_weighting(
            PartInfo::new(
                "examples",
                "the number of examples that the client trained on",
            ),
            |_| Ok(Examples),
        )
        .with_weighting(PartInfo::new("uniform", "one for each client"), |_| {
            Ok(weighting::Uniform)
        })
        .with_weighting(
            PartInfo::new("capped", "the number of examples, and at most `cap`")
                .paper("McMahan et al. 2018, https://arxiv.org/abs/1710.06963")
                .parameter(
                    Parameter::above("cap", 0.0, 100.0).about("the most that a client counts"),
                ),
            |values| Ok(Capped::new(values.number("cap"))),
        )
}

fn objectives(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_objective(PartInfo::new("plain", "the loss"), |_| Ok(Plain))
        .with_objective(
            PartInfo::new(
                "proximal",
                "the loss, and mu / 2 times the squared distance to the global model",
            )
            .paper("Li et al. 2020, https://arxiv.org/abs/1812.06127")
            .parameter(mu(0.01)),
            |values| Ok(Proximal::new(values.number("mu"))),
        )
        .with_objective(
            PartInfo::new(
                "scaffold",
                "the loss, with gradients corrected by control variates",
            )
            .paper("Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378"),
            |_| Ok(Scaffold),
        )
        .with_objective(
            PartInfo::new("fednova", "the loss; updates are normalized by local steps")
                .paper("Wang et al. 2020, https://arxiv.org/abs/2007.07481")
                .parameter(mu(0.0)),
            |values| Ok(FedNova::new(values.number("mu"))),
        )
        .with_objective(
            PartInfo::new(
                "feddyn",
                "the loss, with a linear and a proximal term that each client adapts",
            )
            .paper("Acar et al. 2021, https://arxiv.org/abs/2111.04263")
            .parameter(Parameter::above("alpha", 0.0, 0.01).about("the weight of both terms")),
            |values| Ok(FedDyn::new(values.number("alpha"))),
        )
        .with_objective(
            PartInfo::new("qfedavg", "the loss; clients with a higher one count more")
                .paper("Li et al. 2020, https://arxiv.org/abs/1905.10497")
                .parameter(
                    Parameter::at_least("q", 0.0, 0.2)
                        .about("how much more: the power of a client's loss; 0 is the mean"),
                )
                .parameter(
                    Parameter::at_least("max_loss", 1.0, QFedAvg::MAX_LOSS)
                        .about("the most that a loss counts as, in medians of the round's losses"),
                ),
            |values| {
                let mut objective = QFedAvg::new(values.number("q"));
                objective.max_loss = values.number("max_loss");
                Ok(objective)
            },
        )
}

fn mu(default: f64) -> Parameter {
    Parameter::at_least("mu", 0.0, default)
        .about("how strongly clients are held near the global model")
}

fn optimizers(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_optimizer(
            PartInfo::new("sgd", "a step along the mean delta").parameter(server_lr(1.0)),
            |values| Ok(Sgd::new(values.number("server_lr"))),
        )
        .with_optimizer(
            PartInfo::new("momentum", "steps along a moving sum of the mean deltas")
                .paper("Hsu et al. 2019, https://arxiv.org/abs/1909.06335")
                .parameter(server_lr(1.0))
                .parameter(server_momentum()),
            |values| {
                let momentum = values.number("server_momentum");
                Ok(Momentum::new(values.number("server_lr"), momentum))
            },
        )
        .with_optimizer(
            PartInfo::new("nesterov", "momentum that looks one step ahead")
                .paper("Douillard et al. 2023, https://arxiv.org/abs/2311.08105")
                .parameter(server_lr(1.0))
                .parameter(server_momentum()),
            |values| {
                let momentum = values.number("server_momentum");
                Ok(Momentum::new(values.number("server_lr"), momentum).nesterov())
            },
        )
        .with_optimizer(
            adaptive(
                "adagrad",
                "steps divided by the root of all squared deltas",
                0.0,
            ),
            |values| Ok(Adagrad::new(settings(values))),
        )
        .with_optimizer(
            adaptive(
                "adam",
                "steps divided by the root of a moving mean of squared deltas",
                0.9,
            )
            .parameter(beta2()),
            |values| Ok(Adam::new(settings(values), values.number("beta2"))),
        )
        .with_optimizer(
            adaptive(
                "yogi",
                "as adam, with a second moment that falls slowly",
                0.9,
            )
            .parameter(beta2()),
            |values| Ok(Yogi::new(settings(values), values.number("beta2"))),
        )
}

fn server_lr(default: f64) -> Parameter {
    Parameter::at_least("server_lr", 0.0, default).about("the server's learning rate")
}

fn server_momentum() -> Parameter {
    Parameter::decay("server_momentum", 0.9).about("the factor of the velocity before")
}

fn beta2() -> Parameter {
    Parameter::decay("beta2", 0.99).about("the factor of the second moment before")
}

fn adaptive(name: &str, about: &str, beta1: f64) -> PartInfo {
    PartInfo::new(name, about)
        .paper("Reddi et al. 2021, https://arxiv.org/abs/2003.00295")
        .parameter(server_lr(0.01))
        .parameter(Parameter::above("tau", 0.0, 1e-3).about("how adaptive: the smaller, the more"))
        .parameter(Parameter::decay("beta1", beta1).about("the factor of the first moment before"))
        .parameter(Parameter::at_least("initial_v", 0.0, 0.0).optional().about(
            "the second moment before the first round; if it is left out, the square of tau",
        ))
}

fn settings(values: &Values) -> Adaptive {
    let tau = values.number("tau");
    let mut settings = Adaptive::new(values.number("server_lr"), tau, values.number("beta1"));
    if let Some(initial) = values.given("initial_v") {
        settings.initial_v = initial;
    }
    settings
}
