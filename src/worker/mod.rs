//! A worker: registers, polls for tasks, trains its clients, reports, and repeats.

mod trainer;

pub use trainer::{
    ClientContext, DatasetInfo, EvalTask, LocalTrainer, LocalUpdate, Partition, TrainError,
    TrainTask, TrainerFactory,
};
