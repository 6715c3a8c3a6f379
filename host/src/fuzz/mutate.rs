//! Small changes to inputs, the same ones at every run: what the fuzz targets are tried with where no fuzzer runs.
//!
//! This file uses nothing but std: the SDK's tests compile the same file.

/// Numbers that look random and follow from a seed (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).expect("below a usize")
    }
}

/// Bytes that parsers treat specially.
const SPECIAL: &[u8] = b"\0\x01\x7f\x80\xff\"'\\/.*:%{}[](),;=-+@#?&_~ \t\r\n09azAZ";
/// Words that parsers treat specially.
const WORDS: &[&str] = &[
    "..",
    "/../",
    "%2e%2e",
    "%00",
    "*",
    "**",
    "://",
    "null",
    "true",
    "1e999",
    "-1",
    "18446744073709551616",
    "\u{e9}",
    "\u{202e}",
    "\u{10ffff}",
    "EdDSA",
    "@daily",
    "L",
    "W",
    "00-",
];

/// Another input, made of `seed` and sometimes a part of `other` by one to eight small changes.
pub fn mutate(numbers: &mut Numbers, seed: &[u8], other: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(8) {
        change(numbers, &mut bytes, other);
    }
    bytes.truncate(bytes_max);
    bytes
}

fn change(numbers: &mut Numbers, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = numbers.below(bytes.len() + 1);
    let inside = at.min(bytes.len().saturating_sub(1));
    match numbers.below(9) {
        0 if !bytes.is_empty() => bytes[inside] ^= 1 << numbers.below(8),
        1 if !bytes.is_empty() => bytes[inside] = SPECIAL[numbers.below(SPECIAL.len())],
        2 if !bytes.is_empty() => bytes[inside] = numbers.draw() as u8,
        3 => bytes.insert(at, SPECIAL[numbers.below(SPECIAL.len())]),
        4 => drop(bytes.splice(at..at, WORDS[numbers.below(WORDS.len())].bytes())),
        5 => bytes.truncate(at),
        6 => {
            let end = at + numbers.below(bytes.len() - at + 1);
            bytes.drain(at..end);
        }
        7 => {
            let length = numbers.below((bytes.len() - at).min(64) + 1);
            let part = bytes[at..at + length].to_vec();
            let to = numbers.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        _ => {
            let from = numbers.below(other.len() + 1);
            let length = numbers.below((other.len() - from).min(64) + 1);
            bytes.splice(at..at, other[from..from + length].iter().copied());
        }
    }
}
