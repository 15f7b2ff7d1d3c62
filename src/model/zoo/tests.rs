//! The zoo against PyTorch: names, shapes and answers.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::*;
use crate::{
    model::{
        Classifier, export, import, layout_of, pytorch_initial,
        testing::{devices, distance, fixture, fixture_bytes, tensor},
    },
    parameters::{Parameters, Role, safetensors},
};

const DIGITS: ClassifierShape = ClassifierShape {
    channels: 1,
    height: 8,
    width: 8,
    classes: 10,
};
const CIFAR10: ClassifierShape = ClassifierShape {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

fn mlp(device: &Device) -> Mlp {
    Mlp::new(&DIGITS, device).unwrap()
}

fn lenet(device: &Device) -> LeNet {
    LeNet::new(&CIFAR10, device).unwrap()
}

fn tiny_cnn(device: &Device) -> TinyCnn {
    TinyCnn::new(&DIGITS, device).unwrap()
}

fn trainable(parameters: &Parameters) -> usize {
    let tensors = parameters.layout().tensors().iter();
    tensors
        .filter(|spec| spec.role == Role::Trainable)
        .map(|spec| spec.range().len())
        .sum()
}

/// Answers as PyTorch does, from its file, on every device; and gives the file back as it was.
fn answers_as_pytorch<C: Classifier>(name: &str, build: fn(&Device) -> C, expected: usize) {
    let file = fixture(name);
    let (input, logits) = (
        fixture(&format!("{name}.input")),
        fixture(&format!("{name}.logits")),
    );
    for (backend, device) in devices() {
        let module = import(build(&device.clone().autodiff()), &file).unwrap();
        let answer = module
            .valid()
            .forward(tensor(&input, "input", &device), None)
            .into_data();
        let difference = distance(answer.as_slice().unwrap(), logits.tensor("logits").unwrap());
        assert!(difference < 1e-5, "{name} on {backend}: {difference}");

        let exported = export(&module).unwrap();
        assert_eq!(exported, file, "{name} on {backend}");
        assert_eq!(trainable(&exported), expected);
    }
}

#[test]
fn the_zoo_answers_as_pytorch_from_pytorchs_files() {
    answers_as_pytorch("mlp", mlp, 9_610);
    answers_as_pytorch("lenet", lenet, 62_006);
    answers_as_pytorch("tiny_cnn", tiny_cnn, 3_706);
}

#[test]
fn the_values_in_a_file_are_the_bytes_that_pytorch_writes() {
    let values = |file: &[u8]| {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        file[8 + length..].to_vec()
    };
    for (_, device) in devices() {
        let module = import(lenet(&device.autodiff()), &fixture("lenet")).unwrap();
        let ours = safetensors::encode(&export(&module).unwrap());
        assert_eq!(values(&ours), values(&fixture_bytes("lenet")));
    }
}

#[test]
fn cifar_cnn_has_the_layers_that_the_documentation_says() {
    let (_, device) = devices().remove(0);
    let module = CifarCnn::new(&CIFAR10, &device.clone().autodiff()).unwrap();
    let layout = layout_of(&module).unwrap();
    let shape = |name: &str| layout.find(name).unwrap().shape.clone();
    assert_eq!(shape("conv1.weight"), [32, 3, 3, 3]);
    assert_eq!(shape("conv3.weight"), [128, 64, 3, 3]);
    assert_eq!(shape("bn2.running_var"), [64]);
    assert_eq!(shape("fc1.weight"), [256, 8192]);
    assert_eq!(shape("fc2.weight"), [10, 256]);
    let initial = pytorch_initial(&layout, 1);
    assert_eq!(trainable(&initial), 2_193_674);
    let module = import(module, &initial).unwrap().valid();
    let logits = module.forward(Tensor::zeros([2, 3, 32, 32], &device), None);
    assert_eq!(logits.dims(), [2, 10]);
}

#[test]
fn shapes_that_leave_nothing_to_classify_are_errors() {
    let (_, device) = devices().remove(0);
    assert!(LeNet::new(&DIGITS, &device).is_err());
    let error = CifarCnn::new(&ClassifierShape { width: 3, ..DIGITS }, &device).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cifar_cnn needs sides of at least 4 pixels, not 1 x 8 x 3 with 10 classes: choose another model or dataset"
    );
}

#[test]
fn halving_before_a_relu_changes_no_value_and_no_gradient() {
    use burn::tensor::{TensorData, activation::relu};

    // Ties, windows of negatives alone, zeros of both signs.
    let values: Vec<f32> = (0..96)
        .map(|at| [0.5, -1.0, 0.5, -0.25, 0.0, -0.0, -3.0, 2.0, 1.0][at * at % 9])
        .collect();
    for (backend, device) in devices() {
        let device = device.autodiff();
        let outcome = |forward: fn(Tensor<4>) -> Tensor<4>| {
            let data = TensorData::new(values.clone(), [2, 3, 4, 4]);
            let images = Tensor::<4>::from_data(data, &device).require_grad();
            let answer = forward(images.clone());
            let weights: Vec<f32> = (1..25).map(|weight| weight as f32).collect();
            let weights = Tensor::from_data(TensorData::new(weights, [2, 3, 2, 2]), &device);
            let gradients = answer.clone().mul(weights).sum().backward();
            let gradient = images.grad(&gradients).unwrap();
            [answer.inner(), gradient]
                .map(|tensor| tensor.into_data().try_into_vec::<f32>().unwrap())
        };
        let after = outcome(|images| halved(relu(images)));
        let before = outcome(|images| relu(halved(images)));
        assert_eq!(before, after, "{backend}");
    }
}
