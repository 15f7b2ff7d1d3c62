//! Twenty steps of a whole local training against PyTorch's, on every device that this machine has.

use std::path::Path;

use super::*;

// The program that checks a device on a machine with a GPU makes the same steps, so that the two can't come apart.
#[allow(
    clippy::field_reassign_with_default,
    reason = "from outside of the crate, the settings have no other way"
)]
#[path = "../../../../benches/support/twenty_steps.rs"]
mod steps;

/// The largest relative difference that is taken for rounding.
const LIMIT: f64 = 1e-3;

#[test]
fn twenty_steps_end_where_pytorchs_do_on_every_device() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut ran = 0;
    for name in DeviceSpec::built() {
        // One device of each kind; the names that stand for another of them add nothing.
        let name = name.replace("INDEX", "0");
        let spec: DeviceSpec = name.parse().unwrap();
        if matches!(spec, DeviceSpec::Cpu | DeviceSpec::Auto) {
            continue;
        }
        for optimizer in ["sgd", "adam"] {
            let factory = match BurnTrainers::new(spec) {
                Ok(factory) => factory,
                Err(error) => {
                    eprintln!("{optimizer} on {name}: skipped, {error}");
                    continue;
                }
            };
            let distance = steps::distance(factory, &fixtures, optimizer).unwrap();
            let (largest, tensor) = (distance.largest, distance.tensor);
            eprintln!("{optimizer} on {name}: {largest:.1e}, in {tensor}");
            assert!(
                largest <= LIMIT,
                "{optimizer} on {name}: {tensor} is {largest:.1e} from PyTorch's"
            );
            let loss = distance.loss;
            assert!(
                loss < LIMIT,
                "{optimizer} on {name}: the mean loss is {loss:.1e} from PyTorch's"
            );
            ran += 1;
        }
    }
    assert!(ran >= 2, "no device at all");
}
