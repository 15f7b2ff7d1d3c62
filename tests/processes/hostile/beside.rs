//! An attack that goes on while something else happens.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Set when it is dropped: also if a test fails, whose attack would otherwise go on forever.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Repeats an attack on a thread until something has happened. Returns how often.
pub fn repeated_while(mut attack: impl FnMut() + Send, happens: impl FnOnce()) -> usize {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                attack();
                count += 1;
            }
            count
        });
        let end = SetAtEnd(&is_over);
        happens();
        drop(end);
        attacker.join().unwrap()
    })
}
