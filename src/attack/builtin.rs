//! The attacks of this crate, with the defaults of their papers.

use super::{Alie, Attacks, Backdoor, FreeRider, Gaussian, Ipm, LabelFlip, Lazy, SignFlip};
use crate::strategy::{Parameter, PartInfo, Values};

/// The most optimizer steps of a lazy client, and the largest claim.
const MOST: f64 = 1e6;

impl Default for Attacks {
    fn default() -> Self {
        on_data(on_updates(Self::empty()))
    }
}

fn on_updates(attacks: Attacks) -> Attacks {
    let scale = |about: &str, default| Parameter::at_least("scale", 0.0, default).about(about);
    attacks
        .with(
            PartInfo::new("sign_flip", "the opposite of the honest change: -scale * delta")
                .paper("Karimireddy et al. 2022, https://arxiv.org/abs/2006.09365; Li et al. 2019, https://arxiv.org/abs/1811.03761")
                .parameter(scale("how many times as long as the honest change", 1.0)),
            |values| Ok(SignFlip::new(values.number("scale"))),
        )
        .with(
            PartInfo::new("gaussian", "noise in place of a change: N(0, sigma^2)")
                .paper("Blanchard et al. 2017, https://arxiv.org/abs/1703.02757")
                .parameter(
                    Parameter::at_least("sigma", 0.0, 200.0).about("the noise's standard deviation"),
                ),
            |values| Ok(Gaussian::new(values.number("sigma"))),
        )
        .with(
            PartInfo::new("alie", "a little is enough: mean - z * deviation of the attackers' honest changes")
                .paper("Baruch et al. 2019, https://arxiv.org/abs/1902.06156")
                .parameter(
                    Parameter::between("z", f64::NEG_INFINITY, f64::INFINITY, 0.0)
                        .optional()
                        .about("how many standard deviations away; without it, by the paper's formula"),
                ),
            |values| Ok(values.given("z").map_or(Alie::new(), Alie::with_z)),
        )
        .with(
            PartInfo::new("ipm", "inner product manipulation: -epsilon * mean of the attackers' honest changes")
                .paper("Xie et al. 2019, https://arxiv.org/abs/1903.03936")
                .parameter(
                    Parameter::at_least("epsilon", 0.0, 0.1).about("how many times as long as the mean"),
                ),
            |values| Ok(Ipm::new(values.number("epsilon"))),
        )
        .with(
            PartInfo::new("free_rider", "trains nothing, and sends the last change of the global model, or noise")
                .paper("Lin et al. 2019, https://arxiv.org/abs/1911.12560; Fraboni et al. 2021, https://arxiv.org/abs/2006.11901")
                .parameter(scale("how many times as long as the last change", 1.0))
                .parameter(
                    Parameter::at_least("sigma", 0.0, 0.001)
                        .about("the standard deviation of noise on it; 0 for none"),
                ),
            |values| Ok(FreeRider::new(values.number("scale"), values.number("sigma"))),
        )
        .with(
            PartInfo::new("lazy", "takes few steps, and claims many")
                .parameter(Parameter::between("steps", 1.0, MOST, 1.0).about("how many steps it takes"))
                .parameter(
                    Parameter::between("claim", 1.0, MOST, 10.0)
                        .about("how many times as many steps and examples it claims"),
                ),
            |values| Ok(Lazy::new(whole(values, "steps")?, values.number("claim"))),
        )
}

fn on_data(attacks: Attacks) -> Attacks {
    attacks
        .with(
            PartInfo::new("label_flip", "trains on false labels: y becomes C - 1 - y")
                .paper("Fang et al. 2020, https://arxiv.org/abs/1911.11815"),
            |_| Ok(LabelFlip),
        )
        .with(
            PartInfo::new("backdoor", "trains on images with a trigger and the target for a label, and sends scale * delta")
                .paper("Bagdasaryan et al. 2020, https://arxiv.org/abs/1807.00459")
                .parameter(
                    Parameter::between("target", 0.0, f64::from(u16::MAX), 0.0)
                        .about("the class that images with the trigger are to be taken for"),
                )
                .parameter(
                    Parameter::between("share", 0.0, 1.0, Backdoor::SHARE)
                        .about("the share of the attackers' images that have the trigger"),
                )
                .parameter(
                    Parameter::between("size", 1.0, 4096.0, Backdoor::SIZE as f64)
                        .about("height and width of the trigger in pixels"),
                )
                .parameter(
                    Parameter::at_least("scale", 0.0, 1.0)
                        .optional()
                        .about("how many times as long as the honest change; without it, clients / attackers"),
                ),
            |values| {
                let mut backdoor = Backdoor::new(whole(values, "target")? as u16);
                backdoor.share = values.number("share");
                backdoor.size = whole(values, "size")? as usize;
                backdoor.scale = values.given("scale");
                Ok(backdoor)
            },
        )
}

/// A whole number that has a default.
fn whole(values: &Values, name: &str) -> Result<u32, String> {
    Ok(values.whole(name)?.unwrap_or_default())
}
