use proptest::prelude::*;
use rand::SeedableRng;

use super::*;

fn images(shape: ImageShape, count: usize) -> ImageSet {
    let pixels = (0..count * shape.pixels())
        .map(|at| (at * 7 + 1) as u8)
        .collect();
    let labels = (0..count).map(|at| (at % 2) as u16).collect();
    let classes = vec!["even".to_owned(), "odd".to_owned()];
    ImageSet::new("test", shape, classes, pixels, labels).unwrap()
}

fn normalization(channels: usize) -> Normalization {
    Normalization {
        max: 255.0,
        mean: (0..channels)
            .map(|channel| 0.4 + channel as f32 / 10.0)
            .collect(),
        std: vec![0.25; channels],
    }
}

/// The window as one would write it down: every output pixel on its own.
fn reference(image: &[u8], shape: ImageShape, place: Placement, norm: &Normalization) -> Vec<f32> {
    let ImageShape {
        channels,
        height,
        width,
    } = shape;
    let mut out = Vec::new();
    for channel in 0..channels {
        for y in 0..height as isize {
            for x in 0..width as isize {
                let x = if place.mirrored {
                    width as isize - 1 - x
                } else {
                    x
                };
                let (from_y, from_x) = (y + place.down, x + place.right);
                let inside =
                    (0..height as isize).contains(&from_y) && (0..width as isize).contains(&from_x);
                let raw = if inside {
                    image[(channel * height + from_y as usize) * width + from_x as usize]
                } else {
                    0
                };
                out.push((raw as f32 / norm.max - norm.mean[channel]) / norm.std[channel]);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn every_window_is_the_reference_window(
        channels in 1_usize..4,
        height in 1_usize..7,
        width in 1_usize..7,
        down in -8_isize..8,
        right in -8_isize..8,
        mirrored: bool,
    ) {
        let shape = ImageShape { channels, height, width };
        let images = images(shape, 1);
        let norm = normalization(channels);
        let place = Placement { down, right, mirrored, reflect: false };
        let mut out = Vec::new();
        let image = images.image(0).unwrap();
        Transform::new(shape, &norm).unwrap().append(image, place, &mut out);
        prop_assert_eq!(out, reference(image, shape, place, &norm));
    }
}

/// The rows, or the values of a row, with `padding` more at each end, as NumPy's `pad(mode="reflect")` makes them.
fn padded<T: Clone>(values: &[T], padding: usize) -> Vec<T> {
    let before = (1..=padding).rev().map(|at| values[at].clone());
    let after = (1..=padding).map(|at| values[values.len() - 1 - at].clone());
    before.chain(values.iter().cloned()).chain(after).collect()
}

proptest! {
    #[test]
    fn a_reflected_window_is_cut_out_of_the_padded_image(
        height in 1_usize..7,
        width in 1_usize..7,
        down in -8_isize..8,
        right in -8_isize..8,
        mirrored: bool,
    ) {
        let shape = ImageShape { channels: 2, height, width };
        let within = |offset: isize, size: usize| offset.clamp(1 - size as isize, size as isize - 1);
        let (down, right) = (within(down, height), within(right, width));
        let images = images(shape, 1);
        let image = images.image(0).unwrap();
        let norm = normalization(2);
        let mut expected = Vec::new();
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            let rows: Vec<Vec<u8>> = plane.chunks_exact(width).map(|row| padded(row, width - 1)).collect();
            for row in &padded(&rows, height - 1)[(height as isize - 1 + down) as usize..][..height] {
                let mut cut = row[(width as isize - 1 + right) as usize..][..width].to_vec();
                if mirrored {
                    cut.reverse();
                }
                expected.extend(cut.iter().map(|raw| (f32::from(*raw) / norm.max - norm.mean[channel]) / norm.std[channel]));
            }
        }
        let mut out = Vec::new();
        let place = Placement { down, right, mirrored, reflect: true };
        Transform::new(shape, &norm).unwrap().append(image, place, &mut out);
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn a_reflected_crop_is_never_wider_than_the_image_can_be_mirrored(
        height in 1_usize..7,
        width in 1_usize..7,
        seed: u64,
    ) {
        let shape = ImageShape { channels: 1, height, width };
        let augmentation = Augmentation { flip: true, crop_padding: 4, reflect: true };
        let transform = Transform::new(shape, &normalization(1)).unwrap();
        let mut batch = Batch::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        transform.fill_augmented(&images(shape, 3), &[0, 1, 2], augmentation, &mut rng, &mut batch).unwrap();
        prop_assert_eq!(batch.pixels.len(), 3 * height * width);
    }
}

#[test]
fn plain_scaling_is_raw_over_max() {
    let images = images(SHAPE, 1);
    let transform = Transform::new(SHAPE, &Normalization::scale(3, 255.0)).unwrap();
    let mut batch = Batch::default();
    transform.fill(&images, &[0], &mut batch).unwrap();
    let raw = images.image(0).unwrap().iter();
    let expected: Vec<f32> = raw.map(|raw| f32::from(*raw) / 255.0).collect();
    assert_eq!(batch.pixels, expected);
}

const SHAPE: ImageShape = ImageShape {
    channels: 3,
    height: 5,
    width: 4,
};

#[test]
fn a_batch_holds_the_images_asked_for_in_order() {
    let images = images(SHAPE, 4);
    let transform = Transform::new(SHAPE, &normalization(3)).unwrap();
    // What an earlier, larger batch left behind must not show.
    let mut batch = Batch {
        pixels: vec![9.0; 1000],
        labels: vec![9; 50],
    };
    transform.fill(&images, &[3, 0, 3], &mut batch).unwrap();
    assert_eq!(batch.labels, [1, 0, 1]);
    let expected: Vec<f32> = [3, 0, 3]
        .into_iter()
        .flat_map(|index| {
            let image = images.image(index).unwrap();
            reference(image, SHAPE, Placement::default(), &normalization(3))
        })
        .collect();
    assert_eq!(batch.pixels, expected);
}

#[test]
fn augmentation_draws_every_window_and_repeats_with_its_seed() {
    let images = images(SHAPE, 1);
    let transform = Transform::new(SHAPE, &normalization(3)).unwrap();
    let augmentation = Augmentation {
        flip: true,
        crop_padding: 1,
        reflect: false,
    };
    let indices = vec![0; 600];
    let fill = |seed| {
        let mut batch = Batch::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        transform
            .fill_augmented(&images, &indices, augmentation, &mut rng, &mut batch)
            .unwrap();
        batch
    };
    let batch = fill(1);
    assert_eq!(batch, fill(1));
    assert_ne!(batch, fill(2));

    let mut windows: Vec<&[f32]> = batch.pixels.chunks_exact(SHAPE.pixels()).collect();
    windows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    windows.dedup();
    // 3 places down, 3 to the right, mirrored or not.
    assert_eq!(windows.len(), 18);
    for down in -1..=1 {
        for right in -1..=1 {
            for mirrored in [false, true] {
                let place = Placement {
                    down,
                    right,
                    mirrored,
                    reflect: false,
                };
                let window = reference(images.image(0).unwrap(), SHAPE, place, &normalization(3));
                assert!(windows.contains(&window.as_slice()), "{place:?}");
            }
        }
    }
}

#[test]
fn no_augmentation_draws_nothing_and_changes_nothing() {
    let images = images(SHAPE, 3);
    let transform = Transform::new(SHAPE, &normalization(3)).unwrap();
    let (mut plain, mut augmented) = (Batch::default(), Batch::default());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    transform.fill(&images, &[0, 1, 2], &mut plain).unwrap();
    transform
        .fill_augmented(
            &images,
            &[0, 1, 2],
            Augmentation::NONE,
            &mut rng,
            &mut augmented,
        )
        .unwrap();
    assert_eq!(plain, augmented);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let images = images(SHAPE, 3);
    let transform = Transform::new(SHAPE, &normalization(3)).unwrap();
    let mut batch = Batch::default();
    assert!(matches!(
        transform.fill(&images, &[0, 3], &mut batch),
        Err(DataError::IndexOutOfRange {
            index: 3,
            examples: 3,
            ..
        })
    ));
    let wide = ImageShape { width: 5, ..SHAPE };
    let other = Transform::new(wide, &normalization(3)).unwrap();
    assert!(matches!(
        other.fill(&images, &[0], &mut batch),
        Err(DataError::Inconsistent { .. })
    ));
    assert!(Transform::new(SHAPE, &normalization(1)).is_err());
    for zero in [0.0, -1.0, f32::NAN] {
        let norm = Normalization {
            std: vec![0.25, zero, 0.25],
            ..normalization(3)
        };
        assert!(Transform::new(SHAPE, &norm).is_err());
    }
}

#[test]
fn measured_images_are_normalised_to_mean_zero_and_spread_one() {
    let images = images(SHAPE, 40);
    let norm = Normalization::measure(&images, 255.0);
    let transform = Transform::new(SHAPE, &norm).unwrap();
    let mut batch = Batch::default();
    let all: Vec<u32> = (0..40).collect();
    transform.fill(&images, &all, &mut batch).unwrap();
    for channel in 0..3 {
        let plane = SHAPE.height * SHAPE.width;
        let values: Vec<f64> = batch
            .pixels
            .chunks_exact(plane)
            .skip(channel)
            .step_by(3)
            .flatten()
            .map(|&value| f64::from(value))
            .collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| value * value).sum::<f64>() / count;
        assert!(
            mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-4,
            "{mean} {square}"
        );
    }
}

#[test]
fn images_of_one_value_have_a_normalization_that_can_be_used() {
    let set = ImageSet::new("flat", SHAPE, vec!["a".to_owned()], vec![7; 60], vec![0]).unwrap();
    let norm = Normalization::measure(&set, 255.0);
    let transform = Transform::new(SHAPE, &norm).unwrap();
    let mut batch = Batch::default();
    transform.fill(&set, &[0], &mut batch).unwrap();
    assert!(batch.pixels.iter().all(|value| value.abs() < 1e-6));
}
