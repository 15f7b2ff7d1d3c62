//! Changes inputs at random.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// No input becomes longer.
const LONGEST: usize = 8 << 10;
/// No more inputs are kept.
const MOST: usize = 4000;
/// Numbers at which code changes its mind.
const NUMBERS: [u64; 12] = [
    0,
    1,
    7,
    8,
    127,
    255,
    65_535,
    65_536,
    u32::MAX as u64,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];
/// The same as text, and other numbers that a text can have.
const TEXTS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "255",
    "256",
    "65536",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e999",
    "1e-320",
    "0.1",
    "NaN",
];

/// The inputs that are changed, and the words that go into them.
pub(super) struct Inputs {
    inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    rng: ChaCha8Rng,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            inputs: vec![Vec::new()],
            words: TEXTS.map(|text| text.as_bytes().to_vec()).to_vec(),
            rng: ChaCha8Rng::seed_from_u64(0),
        }
    }
}

impl Inputs {
    /// The same, drawing by this seed.
    pub(super) fn seeded(mut self, seed: u64) -> Self {
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        self
    }

    pub(super) fn add(&mut self, bytes: Vec<u8>) {
        if self.inputs.len() < MOST && !bytes.is_empty() {
            self.inputs.push(bytes);
        }
    }

    pub(super) fn add_word(&mut self, word: &[u8]) {
        self.words.push(word.to_vec());
    }

    pub(super) fn all(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// One of the inputs, changed once or a few times.
    pub(super) fn draw(&mut self) -> Vec<u8> {
        let index = self.below(self.inputs.len());
        let mut bytes = self.inputs[index].clone();
        // Mostly few changes: with many, nothing gets behind the first check.
        let mut changes = 1;
        while changes < 16 && self.below(2) == 0 {
            changes += 1;
        }
        for _ in 0..changes {
            self.change(&mut bytes);
        }
        // An input that was there at the beginning may be longer.
        bytes.truncate(LONGEST.max(self.inputs[index].len()));
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(64) + 1);
        match self.below(11) {
            0 => flip(bytes, at, 1 << self.below(8)),
            1 => {
                let byte = self.below(256) as u8;
                bytes.insert(at, byte);
            }
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            5 => self.number(bytes, at),
            6 => {
                let word = self.word();
                bytes.splice(at..at, word);
            }
            7 => {
                let word = self.word();
                bytes.splice(at..end, word);
            }
            8 => self.decimal(bytes, at),
            9 => self.cross(bytes, at),
            _ => {
                let byte = self.below(256) as u8;
                if let Some(found) = bytes.get_mut(at) {
                    *found = byte;
                }
            }
        }
    }

    /// Writes a binary number over what is there, of one, two, four or eight bytes.
    fn number(&mut self, bytes: &mut [u8], at: usize) {
        let number = NUMBERS[self.below(NUMBERS.len())].wrapping_add(self.below(3) as u64);
        let size = 1 << self.below(4);
        for (byte, new) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..size]) {
            *byte = *new;
        }
    }

    /// Puts another number into the place of one that is a text.
    fn decimal(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let digit = |byte: &u8| byte.is_ascii_digit();
        let Some(start) = bytes[at..].iter().position(digit) else {
            return;
        };
        let start = at + start;
        let length = bytes[start..].iter().take_while(|byte| digit(byte)).count();
        let text = TEXTS[self.below(TEXTS.len())];
        bytes.splice(start..start + length, text.bytes());
    }

    /// Goes on with a part of another input.
    fn cross(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let other = &self.inputs[self.rng.next_u64() as usize % self.inputs.len()];
        let from = self.rng.next_u64() as usize % (other.len() + 1);
        let part = other[from..].to_vec();
        bytes.truncate(at);
        bytes.extend_from_slice(&part);
    }

    fn word(&mut self) -> Vec<u8> {
        let index = self.below(self.words.len());
        self.words[index].clone()
    }

    /// A number below this one, which is above 0.
    fn below(&mut self, end: usize) -> usize {
        (self.rng.next_u64() % end as u64) as usize
    }
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}
