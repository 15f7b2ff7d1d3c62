//! What is done once the journal has what it depends on.

use tokio::sync::{mpsc, watch};

use crate::store::journal::{JournalError, Pending};

/// Something that is done once something else is durable.
pub(super) type Effect = Box<dyn FnOnce() + Send>;

/// Effects in the order in which they are due, each with what it waits for.
pub(super) type Effects = mpsc::UnboundedSender<(Pending, Effect)>;

/// Carries effects out, each once it is due, until nobody can add one any more. If the journal ends first, `broken` gets the
/// reason.
pub(super) async fn carry_out(
    mut effects: mpsc::UnboundedReceiver<(Pending, Effect)>,
    broken: watch::Sender<Option<JournalError>>,
) {
    while let Some((due, effect)) = effects.recv().await {
        // Nobody waits for it: what the journal gathers meanwhile is one write. If it never becomes durable, it is not done,
        // and neither is what comes after it.
        if let Err(error) = due.wait_idly().await {
            broken.send_replace(Some(error));
            return;
        }
        effect();
    }
}
