//! Compositions under the names that their papers gave them.

use super::PartKind;

/// A composition with a name.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// Its name: a job's `strategy.kind`.
    pub name: &'static str,
    /// What it is for, in one sentence without a full stop.
    pub about: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    sampler: &'static str,
    work: &'static str,
    filter: &'static str,
    weighting: &'static str,
    objective: &'static str,
    reducer: &'static str,
    optimizer: &'static str,
    /// The flags of local training that belong to it; empty if it goes with any.
    pub flags: &'static str,
    /// Parameters whose defaults are not those of the parts.
    defaults: &'static [(&'static str, f64)],
}

impl Preset {
    /// The name of its part of this kind.
    pub fn part(&self, kind: PartKind) -> &'static str {
        match kind {
            PartKind::Sampler => self.sampler,
            PartKind::Work => self.work,
            PartKind::Filter => self.filter,
            PartKind::Weighting => self.weighting,
            PartKind::Objective => self.objective,
            PartKind::Reducer => self.reducer,
            PartKind::Optimizer => self.optimizer,
        }
    }

    pub(super) fn default_of(&self, parameter: &str) -> Option<f64> {
        let mut defaults = self.defaults.iter();
        defaults
            .find(|(name, _)| *name == parameter)
            .map(|(_, value)| *value)
    }
}

const FEDAVG: Preset = Preset {
    name: "fedavg",
    about: "the weighted mean of the clients' models",
    paper: "McMahan et al. 2017, https://arxiv.org/abs/1602.05629",
    sampler: "uniform",
    work: "same",
    filter: "none",
    weighting: "examples",
    objective: "plain",
    reducer: "mean",
    optimizer: "sgd",
    flags: "",
    defaults: &[],
};

/// All presets, in the order in which they are documented.
pub(super) fn all() -> Vec<Preset> {
    vec![
        FEDAVG,
        Preset {
            name: "fedavgm",
            about: "FedAvg with momentum on the server: steadier with unlike clients",
            paper: "Hsu et al. 2019, https://arxiv.org/abs/1909.06335",
            optimizer: "momentum",
            ..FEDAVG
        },
        Preset {
            name: "fedprox",
            about: "clients are held near the global model: for unlike data and unequal amounts of local work",
            paper: "Li et al. 2020, https://arxiv.org/abs/1812.06127",
            objective: "proximal",
            ..FEDAVG
        },
        Preset {
            name: "scaffold",
            about: "control variates take out the drift of clients: for unlike data and clients that come back often",
            paper: "Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378",
            weighting: "uniform",
            objective: "scaffold",
            ..FEDAVG
        },
        Preset {
            name: "fednova",
            about: "updates are normalized by local steps: for clients with unequal amounts of data or work",
            paper: "Wang et al. 2020, https://arxiv.org/abs/2007.07481",
            objective: "fednova",
            ..FEDAVG
        },
        Preset {
            name: "feddyn",
            about: "a regularizer that each client adapts: for unlike data and few rounds",
            paper: "Acar et al. 2021, https://arxiv.org/abs/2111.04263",
            weighting: "uniform",
            objective: "feddyn",
            ..FEDAVG
        },
        Preset {
            name: "qfedavg",
            about: "clients with a higher loss count more: for accuracy that is alike among clients",
            paper: "Li et al. 2020, https://arxiv.org/abs/1905.10497",
            objective: "qfedavg",
            // L = 1 / lr is the paper's for plain SGD: with momentum, deltas are longer, and it divides by their squares.
            flags: "--momentum 0",
            ..FEDAVG
        },
        Preset {
            name: "fedadagrad",
            about: "Adagrad on the server: for sparse features and embeddings",
            paper: "Reddi et al. 2021, https://arxiv.org/abs/2003.00295",
            optimizer: "adagrad",
            defaults: &[("server_lr", 0.1), ("beta1", 0.0)],
            ..FEDAVG
        },
        Preset {
            name: "fedadam",
            about: "Adam on the server: for models that need an adaptive optimizer, such as transformers",
            paper: "Reddi et al. 2021, https://arxiv.org/abs/2003.00295",
            optimizer: "adam",
            defaults: &[("server_lr", 0.01)],
            ..FEDAVG
        },
        Preset {
            name: "fedyogi",
            about: "Yogi on the server: as FedAdam, steadier after large updates",
            paper: "Reddi et al. 2021, https://arxiv.org/abs/2003.00295",
            optimizer: "yogi",
            defaults: &[("server_lr", 0.01)],
            ..FEDAVG
        },
        Preset {
            name: "diloco",
            about: "hundreds of local AdamW steps between rounds, and Nesterov's momentum on the server: for few bytes",
            paper: "Douillard et al. 2023, https://arxiv.org/abs/2311.08105",
            weighting: "uniform",
            optimizer: "nesterov",
            flags: "--local-steps 500 --optimizer adamw --inner-state keep",
            defaults: &[("server_lr", 0.7)],
            ..FEDAVG
        },
        Preset {
            name: "median",
            about: "the median of the reports, for each value: holds if fewer than half are attackers'",
            paper: "Yin et al. 2018, https://arxiv.org/abs/1803.01498",
            reducer: "median",
            ..FEDAVG
        },
        Preset {
            name: "trimmed_mean",
            about: "the mean without the smallest and the largest values",
            paper: "Yin et al. 2018, https://arxiv.org/abs/1803.01498",
            reducer: "trimmed_mean",
            ..FEDAVG
        },
        Preset {
            name: "krum",
            about: "the one report that is closest to its neighbours",
            paper: "Blanchard et al. 2017, https://arxiv.org/abs/1703.02757",
            reducer: "krum",
            ..FEDAVG
        },
        Preset {
            name: "multi_krum",
            about: "the mean of the reports that are closest to their neighbours",
            paper: "Blanchard et al. 2017, https://arxiv.org/abs/1703.02757",
            reducer: "multi_krum",
            ..FEDAVG
        },
        Preset {
            name: "bulyan",
            about: "reports picked by Krum; of these the mean of the values around the median",
            paper: "El Mhamdi et al. 2018, https://arxiv.org/abs/1802.07927",
            reducer: "bulyan",
            ..FEDAVG
        },
        Preset {
            name: "geometric_median",
            about: "a mean in which far reports count little: needs no number of attackers",
            paper: "Pillutla et al. 2022, https://arxiv.org/abs/1912.13445",
            reducer: "geometric_median",
            ..FEDAVG
        },
        Preset {
            name: "norm_clipping",
            about: "long reports are scaled down: against updates that are made large",
            paper: "Sun et al. 2019, https://arxiv.org/abs/1911.07963",
            reducer: "norm_clipping",
            ..FEDAVG
        },
        Preset {
            name: "centered_clipping",
            about: "reports are clipped around the last round's update",
            paper: "Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333",
            reducer: "centered_clipping",
            ..FEDAVG
        },
        Preset {
            name: "zeroing",
            about: "reports that are much too large are left out: against broken clients",
            paper: "Andrew et al. 2021, https://arxiv.org/abs/1905.03871",
            reducer: "zeroing",
            ..FEDAVG
        },
    ]
}
