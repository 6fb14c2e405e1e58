//! Gates: how a test holds an origin back and lets it go on, without sleeping.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// A closed gate. Whoever passes it waits until the test opens it. Clones are the same gate.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use hub_testkit::Gate;
///
/// let gate = Gate::closed();
/// let held = tokio::spawn({ let gate = gate.clone(); async move { gate.pass().await } });
/// gate.open();
/// held.await.unwrap();
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A gate that nothing passes yet.
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everyone pass, now and from now on.
    pub fn open(&self) {
        self.0.close();
    }

    /// Lets one pass: the one that waits longest, or the next to come.
    pub fn let_one_pass(&self) {
        self.0.add_permits(1);
    }

    /// Waits until the gate lets the caller pass.
    pub async fn pass(&self) {
        // A closed semaphore is an open gate: the error is the good news.
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}
