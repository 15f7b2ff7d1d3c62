//! The reducers of this crate.

use super::{Catalogue, Parameter, PartInfo, Values};
use crate::strategy::{
    StrategyError,
    catalogue::ParameterKind,
    reducer::{
        Bound, Bulyan, CenteredClipping, Faults, GeometricMedian, Krum, Mean, Median, MultiKrum,
        Norm, NormClipping, TrimmedMean, Zeroing,
    },
};

const MOST_ITERATIONS: u32 = 1000;

pub(super) fn add(catalogue: Catalogue) -> Catalogue {
    clipping(selection(order(catalogue)))
}

fn order(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_reducer(
            PartInfo::new("mean", "the weighted mean; holds against no attacker"),
            |_| Ok(Mean),
        )
        .with_reducer(
            PartInfo::new("median", "the median of each value; weights do not count")
                .paper("Yin et al. 2018, https://arxiv.org/abs/1803.01498"),
            |_| Ok(Median),
        )
        .with_reducer(
            PartInfo::new(
                "trimmed_mean",
                "of each value the mean without the f smallest and the f largest; weights do not count; 2f + 1 reports",
            )
            .paper("Yin et al. 2018, https://arxiv.org/abs/1803.01498")
            .parameter(f()),
            |values| Ok(TrimmedMean::new(faults(values)?)),
        )
}

fn selection(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_reducer(
            PartInfo::new(
                "krum",
                "the one report that is closest to its neighbours; 2f + 3 reports",
            )
            .paper("Blanchard et al. 2017, https://arxiv.org/abs/1703.02757")
            .parameter(f()),
            |values| Ok(Krum::new(faults(values)?)),
        )
        .with_reducer(
            PartInfo::new(
                "multi_krum",
                "the weighted mean of the reports that are closest to their neighbours; 2f + 3 reports",
            )
            .paper("Blanchard et al. 2017, https://arxiv.org/abs/1703.02757")
            .parameter(f())
            .parameter(
                Parameter::whole("select", 1, u32::MAX, 1)
                    .optional()
                    .about("how many reports are in the mean; without it, all but f"),
            ),
            |values| {
                let rule = MultiKrum::new(faults(values)?);
                Ok(match whole(values, "select")? {
                    Some(select) => rule.selecting(select as usize),
                    None => rule,
                })
            },
        )
        .with_reducer(
            PartInfo::new(
                "bulyan",
                "n - 2f reports picked by Krum; of each value the mean of the n - 4f around the median; 4f + 3 reports",
            )
            .paper("El Mhamdi et al. 2018, https://arxiv.org/abs/1802.07927")
            .parameter(f()),
            |values| Ok(Bulyan::new(faults(values)?)),
        )
        .with_reducer(
            PartInfo::new(
                "geometric_median",
                "the weighted mean, with weights divided by the distance to it again and again",
            )
            .paper("Pillutla et al. 2022, https://arxiv.org/abs/1912.13445")
            .parameter(iterations(100))
            .parameter(
                Parameter::at_least("tolerance", 0.0, 1e-8)
                    .about("it ends before `iterations` if no report's share changes by more than this share of itself"),
            )
            .parameter(
                Parameter::above("smoothing", 0.0, 1e-6)
                    .about("the least distance that a weight is divided by"),
            ),
            |values| {
                Ok(GeometricMedian {
                    iterations: count(values, "iterations")?,
                    tolerance: values.number("tolerance"),
                    smoothing: values.number("smoothing"),
                })
            },
        )
}

fn clipping(catalogue: Catalogue) -> Catalogue {
    catalogue
        .with_reducer(
            PartInfo::new(
                "norm_clipping",
                "the weighted mean of reports that are scaled down to a Euclidean norm",
            )
            .paper("Sun et al. 2019, https://arxiv.org/abs/1911.07963")
            .parameter(
                Parameter::above("bound", 0.0, 1.0)
                    .optional()
                    .about("the norm; without it, `multiplier` times the median of the round's norms"),
            )
            .parameter(
                Parameter::above("multiplier", 0.0, 1.0)
                    .about("the norm, in medians of the round's norms"),
            ),
            |values| {
                Ok(NormClipping::new(match values.given("bound") {
                    Some(bound) => Bound::Fixed(bound),
                    None => Bound::OfMedian(values.number("multiplier")),
                }))
            },
        )
        .with_reducer(
            PartInfo::new(
                "centered_clipping",
                "the last update, moved by the reports' differences to it, which are scaled down to a radius",
            )
            .paper("Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333")
            .parameter(
                Parameter::above("radius", 0.0, 10.0)
                    .about("how far from the last update a report counts whole"),
            )
            .parameter(iterations(1)),
            |values| {
                let mut rule = CenteredClipping::new(values.number("radius"));
                rule.iterations = count(values, "iterations")?;
                Ok(rule)
            },
        )
        .with_reducer(
            PartInfo::new(
                "zeroing",
                "the weighted mean without reports that are much larger than a quantile of them, which adapts",
            )
            .paper("Andrew et al. 2021, https://arxiv.org/abs/1905.03871")
            .parameter(
                Parameter::new("euclidean", ParameterKind::Flag, Some(false.into()))
                    .about("true: a report's size is its Euclidean norm, not its largest value"),
            )
            .parameter(Parameter::share("quantile", 0.98).about("which quantile"))
            .parameter(
                Parameter::at_least("rate", 0.0, std::f64::consts::LN_10)
                    .about("how fast the estimate of the quantile moves"),
            )
            .parameter(
                Parameter::above("initial", 0.0, 10.0).about("the estimate in the first round"),
            )
            .parameter(
                Parameter::at_least("multiplier", 1.0, 2.0)
                    .about("the bound, in estimates of the quantile"),
            )
            .parameter(Parameter::at_least("increment", 0.0, 1.0).about("what is added to it")),
            |values| {
                let mut rule = Zeroing::default();
                if values.flag("euclidean") {
                    rule.norm = Norm::L2;
                }
                rule.quantile = values.number("quantile");
                rule.rate = values.number("rate");
                rule.initial = values.number("initial");
                rule.multiplier = values.number("multiplier");
                rule.increment = values.number("increment");
                Ok(rule)
            },
        )
}

fn f() -> Parameter {
    Parameter::whole("f", 0, u32::MAX, 0)
        .optional()
        .about("how many of the clients that are asked may be attackers; without it, a fifth, rounded down")
}

fn faults(values: &Values) -> Result<Faults, StrategyError> {
    Ok(match whole(values, "f")? {
        Some(count) => Faults::exactly(count as usize),
        None => Faults::usual(),
    })
}

fn iterations(default: u32) -> Parameter {
    // More would keep a thread busy for nothing: the result does not change any more.
    Parameter::whole("iterations", 1, MOST_ITERATIONS, default)
        .about("how many times over, at most")
}

fn count(values: &Values, name: &str) -> Result<u32, StrategyError> {
    Ok(whole(values, name)?.unwrap_or(1))
}

fn whole(values: &Values, name: &str) -> Result<Option<u32>, StrategyError> {
    values.whole(name).map_err(StrategyError::Settings)
}
