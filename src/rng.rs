//! Keyed randomness: every random draw of a job is a function of (seed, purpose, round, client).
//!
//! No generator's state survives a call: code that needs randomness builds the generator from its key, draws, and drops
//! it. So a client that moves to another worker, a task that is done twice and a run on more threads draw the same
//! numbers. Nothing here asks the operating system for randomness.

pub use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::ids::{ClientId, RoundId};

/// What a generator is for. Two purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Drawing the initial global model.
    Initialize,
    /// Dealing the examples over the clients.
    Partition,
    /// Choosing a round's cohort.
    Cohort,
    /// The order of a client's examples.
    Shuffle,
    /// Flips and crops of a client's images.
    Augment,
    /// Dropout masks of a client's training.
    Dropout,
    /// What a strategy of an embedder's own draws beside the cohort.
    Strategy,
    /// Noise that protects privacy.
    Noise,
    /// Who attacks in a simulation, and what attackers draw.
    Attack,
    /// Which training examples are kept for validation.
    Validation,
}

/// The generator for (seed, purpose, round, client).
///
/// The key of ChaCha8 is filled with the four numbers, so that no two keys collide.
pub fn keyed(seed: u64, purpose: Purpose, round: RoundId, client: Option<ClientId>) -> ChaCha8Rng {
    let stream = client.map_or(0, |client| u64::from(client.0) + 1);
    streamed(seed, purpose, round, stream)
}

/// The generator for (seed, purpose, round, stream). Stream 0 is that of no client, and stream n + 1 that of client n.
pub fn streamed(seed: u64, purpose: Purpose, round: RoundId, stream: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[0..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&round.0.to_le_bytes());
    key[24..32].copy_from_slice(&stream.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The generator for (secret, purpose, round, stream). Who knows its numbers learns nothing of the secret, nor of other
/// streams.
pub fn secret(secret: &[u8; 32], purpose: Purpose, round: RoundId, stream: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(secret);
    hash.update((purpose as u64).to_le_bytes());
    hash.update(round.0.to_le_bytes());
    hash.update(stream.to_le_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn secret_streams_differ_in_each_part_of_their_key() {
        let draw = |secret_byte, purpose, round, stream| {
            secret(&[secret_byte; 32], purpose, RoundId(round), stream).next_u64()
        };
        let reference = draw(1, Purpose::Noise, 2, 3);
        assert_eq!(reference, draw(1, Purpose::Noise, 2, 3));
        for other in [
            draw(2, Purpose::Noise, 2, 3),
            draw(1, Purpose::Strategy, 2, 3),
            draw(1, Purpose::Noise, 3, 3),
            draw(1, Purpose::Noise, 2, 4),
        ] {
            assert_ne!(reference, other);
        }
    }

    #[test]
    fn each_part_of_the_key_makes_another_stream_and_the_same_key_the_same() {
        let draw =
            |seed, purpose, round, client| keyed(seed, purpose, RoundId(round), client).next_u64();
        let reference = draw(1, Purpose::Shuffle, 2, Some(ClientId(3)));
        assert_eq!(reference, draw(1, Purpose::Shuffle, 2, Some(ClientId(3))));
        for other in [
            draw(2, Purpose::Shuffle, 2, Some(ClientId(3))),
            draw(1, Purpose::Dropout, 2, Some(ClientId(3))),
            draw(1, Purpose::Shuffle, 3, Some(ClientId(3))),
            draw(1, Purpose::Shuffle, 2, Some(ClientId(4))),
            draw(1, Purpose::Shuffle, 2, None),
        ] {
            assert_ne!(reference, other);
        }
    }
}
