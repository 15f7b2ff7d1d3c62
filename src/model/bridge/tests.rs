use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    nn::{
        BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Int, Tensor},
};

use super::*;
use crate::{
    model::testing::{devices, distance},
    parameters::{Role, safetensors},
};

/// A module as a user might write one: burn's own layers, containers, an option and an integer.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    bn: BatchNorm,
    blocks: Vec<Linear>,
    norm: LayerNorm,
    head: Option<Linear>,
    counts: Param<Tensor<1, Int>>,
}

impl Net {
    fn new(device: &Device, layout: LinearLayout) -> Self {
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs)
                .with_layout(layout)
                .init(device)
        };
        Self {
            conv: Conv2dConfig::new([2, 3], [2, 2]).init(device),
            bn: BatchNormConfig::new(3).init(device),
            blocks: vec![linear(12, 4), linear(4, 4)],
            norm: LayerNormConfig::new(4).init(device),
            head: Some(linear(4, 2)),
            counts: Param::initialized(ParamId::new(), Tensor::from_ints([3, 4], device)),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = self.bn.forward(self.conv.forward(images)).flatten(1, 3);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = self.norm.forward(x);
        match &self.head {
            Some(head) => head.forward(x),
            None => x,
        }
    }
}

fn images(device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..5 * 2 * 3 * 3).map(|at| (at as f32).sin()).collect();
    Tensor::<1>::from_floats(values.as_slice(), device).reshape([5, 2, 3, 3])
}

fn answer(module: &Net, device: &Device) -> Vec<f32> {
    let logits = module.valid().forward(images(device)).into_data();
    logits.try_into_vec().unwrap()
}

const LAYOUTS: [LinearLayout; 2] = [LinearLayout::Row, LinearLayout::Col];

#[test]
fn names_shapes_and_roles_are_pytorchs_for_any_module() {
    for (_, device) in devices() {
        for linear in LAYOUTS {
            let layout = layout_of(&Net::new(&device.clone().autodiff(), linear)).unwrap();
            let found: Vec<_> = layout
                .tensors()
                .iter()
                .map(|spec| (spec.name.as_str(), spec.shape.as_slice(), spec.role))
                .collect();
            let expected: [(&str, &[usize], Role); 14] = [
                ("blocks.0.bias", &[4], Role::Trainable),
                ("blocks.0.weight", &[4, 12], Role::Trainable),
                ("blocks.1.bias", &[4], Role::Trainable),
                ("blocks.1.weight", &[4, 4], Role::Trainable),
                ("bn.bias", &[3], Role::Trainable),
                ("bn.running_mean", &[3], Role::Buffer),
                ("bn.running_var", &[3], Role::Buffer),
                ("bn.weight", &[3], Role::Trainable),
                ("conv.bias", &[3], Role::Trainable),
                ("conv.weight", &[3, 2, 2, 2], Role::Trainable),
                ("head.bias", &[2], Role::Trainable),
                ("head.weight", &[2, 4], Role::Trainable),
                ("norm.bias", &[4], Role::Trainable),
                ("norm.weight", &[4], Role::Trainable),
            ];
            assert_eq!(found, expected);
            // A module without autodiff says the same.
            let plain = layout_of(&Net::new(&device, linear)).unwrap();
            assert_eq!(plain, layout);
            let valid = layout_of(&Net::new(&device.clone().autodiff(), linear).valid()).unwrap();
            assert_eq!(valid, layout);
        }
    }
}

#[test]
fn values_cross_between_modules_of_either_layout_and_through_a_file() {
    for (_, device) in devices() {
        let training = device.clone().autodiff();
        for from in LAYOUTS {
            for to in LAYOUTS {
                let source = Net::new(&training, from);
                source.forward(images(&training));
                let file = safetensors::encode(&export(&source).unwrap());
                let values = safetensors::decode(&file).unwrap();
                let copy = import(Net::new(&training, to), &values).unwrap();
                assert_eq!(export(&copy).unwrap(), values);
                let expected = answer(&source, &device);
                // Another layout is another order of sums.
                assert!(distance(&answer(&copy, &device), &expected) < 1e-5);
                let filled = fill(Net::new(&device, to), &values).unwrap();
                assert_eq!(answer(&filled, &device), answer(&copy, &device));
            }
        }
    }
}

/// burn's BatchNorm keeps its last update aside until the next one: an export that reads the module as it stands has
/// statistics that are one batch old, and an import is overwritten by the update when training goes on.
#[test]
fn the_last_update_of_batch_norm_is_exported_and_does_not_outlive_an_import() {
    for (_, device) in devices() {
        let training = device.clone().autodiff();
        let module = Net::new(&training, LinearLayout::Row);
        module.forward(images(&training));
        let trained = export(&module).unwrap();
        assert_ne!(trained.tensor("bn.running_mean").unwrap(), [0.0; 3]);
        let in_use = module.bn.running_mean.value_sync().into_data();
        assert_eq!(
            trained.tensor("bn.running_mean").unwrap(),
            in_use.as_slice::<f32>().unwrap()
        );

        module.forward(images(&training));
        let mut other = trained.clone();
        other.values_mut().fill(0.5);
        let module = import(module, &other).unwrap();
        assert_eq!(export(&module).unwrap(), other);
        module.forward(images(&training));
        let followed = export(&module).unwrap();
        let fresh = import(Net::new(&training, LinearLayout::Row), &other).unwrap();
        fresh.forward(images(&training));
        assert_eq!(followed, export(&fresh).unwrap());
    }
}

#[test]
fn an_import_keeps_ids_gradients_and_integers() {
    #[derive(Default)]
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let ids = |module: &Net| {
        let mut ids = Ids::default();
        module.visit(&mut ids);
        ids.0
    };
    for (_, device) in devices() {
        let module = Net::new(&device.clone().autodiff(), LinearLayout::Col);
        let before = ids(&module);
        let values = export(&module).unwrap();
        let module = import(module, &values).unwrap();
        assert_eq!(ids(&module), before);
        assert!(module.blocks[0].weight.is_require_grad());
        assert!(!module.bn.running_mean.value().is_require_grad());
        let counts = module.counts.val().into_data();
        assert_eq!(counts.try_to_vec_as::<i64>().unwrap(), [3, 4]);
    }
}

#[test]
fn a_frozen_layer_is_a_buffer() {
    for (_, device) in devices() {
        let mut module = Net::new(&device.clone().autodiff(), LinearLayout::Row);
        module.conv = module.conv.no_grad();
        let layout = layout_of(&module).unwrap();
        assert_eq!(layout.find("conv.weight").unwrap().role, Role::Buffer);
        assert_eq!(layout.find("head.weight").unwrap().role, Role::Trainable);
    }
}

#[test]
fn parameters_of_another_model_are_refused_by_name() {
    for (_, device) in devices() {
        let training = device.clone().autodiff();
        let mut smaller = Net::new(&training, LinearLayout::Row);
        smaller.blocks.pop();
        let error = import(
            Net::new(&training, LinearLayout::Row),
            &export(&smaller).unwrap(),
        );
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "tensor \"blocks.1.bias\" is missing");

        let wider = LinearConfig::new(7, 2).init(&training);
        let error = import(
            LinearConfig::new(6, 2).init(&training),
            &export(&wider).unwrap(),
        );
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "tensor \"weight\" has shape [2, 7], not [2, 6]");
    }
}

#[test]
fn transposing_is_its_own_inverse_at_every_size() {
    for (rows, columns) in [(1, 1), (1, 40), (33, 64), (70, 31)] {
        let values: Vec<f32> = (0..rows * columns).map(|at| at as f32).collect();
        let transposed = pytorch::transpose(&values, rows, columns);
        assert_eq!(transposed[(columns - 1) * rows], values[columns - 1]);
        assert_eq!(pytorch::transpose(&transposed, columns, rows), values);
    }
}
