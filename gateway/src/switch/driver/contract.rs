//! Contract steps of the migrations, in turn with everything that happens to rollouts.

use super::{Driver, Failure, Running, unix_us};
use crate::snapshot::Snapshot;
use crate::switch::fence::{self, ActiveRange, Contract};
use crate::switch::machine::{Event, Record};
use crate::switch::schema;
use hub_config::runtime::{Cluster, Colour};
use hub_store::{Finish, Outcome, Step, StepState, StoreError, WhenRunning, migration};

impl Driver {
    /// Lets a contract step begin, or says why not. One that nobody is there to run does not begin.
    pub(super) async fn contract(&mut self, contract: Contract) {
        if contract.reply.is_closed() {
            return;
        }
        let outcome = self.begin(&contract).await;
        match &outcome {
            Ok(step) => tracing::info!(
                scope = step.scope,
                step = step.number,
                run = %step.run,
                "a contract step of the migrations begins"
            ),
            Err(error) => tracing::warn!(
                scope = contract.step.scope,
                step = contract.step.number,
                %error,
                "a contract step of the migrations may not begin"
            ),
        }
        // One that another run had begun may be half done, so it stays as it is.
        let is_fresh = contract.when_running == WhenRunning::Refuse;
        if let Err(Ok(step)) = contract.reply.send(outcome)
            && is_fresh
        {
            self.unheard(step).await;
        }
    }

    /// Whoever asked went before they could hear that the step may run, so they do not run it. Where they
    /// ask once more, it begins once more.
    async fn unheard(&self, step: Step) {
        if step.state != StepState::Running {
            return;
        }
        let finish = Finish {
            run: step.run,
            outcome: Outcome::Failed,
            finished_us: unix_us(),
            detail: "nothing was run: whoever asked had gone before the answer".to_owned(),
        };
        let ended = self.migrations.finish(&step.scope, step.number, finish);
        if let Err(error) = ended.await {
            tracing::warn!(
                scope = step.scope,
                step = step.number,
                run = %step.run,
                %error,
                "a contract step has begun that nobody runs; `hubctl migrate contract --take-over` ends it"
            );
        }
    }

    async fn begin(&mut self, contract: &Contract) -> Result<Step, StoreError> {
        let (scope, number) = (&contract.step.scope, contract.step.number);
        let steps = self.migrations.list(scope).await?;
        // The same call again answers the same, whatever has changed since; and what the ledger refuses
        // must not be told to the rollouts.
        if let Some(begun) = migration::begun(&contract.step, contract.when_running, &steps)? {
            return Ok(begun);
        }
        // A step that is under way has had its answers, and its cluster reckons with it. One of which the
        // ledger knows nothing has not, though some database has it: perhaps not this one.
        let under_way = |step: &Step| step.number == number && step.state == StepState::Running;
        let asks = contract.when_running != WhenRunning::InForce || !steps.iter().any(under_way);
        if asks && let Some(who) = self.predecessors.told() {
            return Err(StoreError::Refused(format!(
                "contract step {number:04} of `{scope}` may not run: {who}; nobody here knows which colours those are on"
            )));
        }
        let snapshot = self.hub.snapshot();
        let mut guarded = Vec::new();
        for (index, cluster) in fence::on(&snapshot, scope) {
            guarded.push(cluster.name.as_str());
            if !asks {
                continue;
            }
            self.may_contract(&snapshot, index, cluster, contract)
                .map_err(|why| {
                    StoreError::Refused(format!(
                        "contract step {number:04} of `{scope}` may not run, because of cluster `{}`: {why}",
                        cluster.name
                    ))
                })?;
        }
        if asks && guarded.is_empty() {
            return Err(StoreError::Refused(format!(
                "no cluster names the database `{scope}`, so nobody knows who still needs what contract step {number:04} takes away; add it to `schema.scopes` of its cluster and reload"
            )));
        }
        for cluster in guarded {
            if self.clusters.contains_key(cluster) {
                match self.event(cluster, &Event::Contracted).await {
                    // It is written down already.
                    Ok(()) | Err(Failure::Refused(_)) => {}
                    Err(other) => return Err(StoreError::Refused(other.to_string())),
                }
                self.show(cluster);
            }
        }
        let step = contract.step.clone();
        self.migrations.begin(step, contract.when_running).await
    }

    fn may_contract(
        &self,
        snapshot: &Snapshot,
        index: usize,
        cluster: &Cluster,
        contract: &Contract,
    ) -> Result<(), String> {
        let active = snapshot.routing[index].routing.active;
        let running = self.clusters.get(&cluster.name);
        let idle = Record::idle(active);
        let record = running.map_or(&idle, |running| &running.record);
        if running.is_some_and(|running| running.again.is_some() || stale(running, active)) {
            return Err("a decision of its rollout is not written down yet; try again".to_owned());
        }
        let mut ranges = contract.ranges.iter();
        let asked = ranges.find(|one| one.cluster == cluster.name && one.colour == active);
        let Some(ActiveRange { range, .. }) = asked else {
            return Err("its active colour has changed just now; try again".to_owned());
        };
        let range = range.clone()?;
        let other = active.other();
        let busy = self.hub.switchboard.on(&cluster.name, other);
        let kept = kept(snapshot, index, other);
        schema::may_contract(contract.step.number, record, range, busy, kept)
            .map_err(|barred| barred.to_string())
    }
}

/// The routing in force is not the one of the record.
fn stale(running: &Running, active: Colour) -> bool {
    running.record.epoch > 0 && running.record.routing.active != active
}

/// A tenant that is kept on this colour of a cluster, whatever its routing says.
fn kept(snapshot: &Snapshot, cluster: usize, colour: Colour) -> Option<&str> {
    let mut tenants = snapshot.config.tenants.iter();
    tenants.find_map(|(_, tenant)| {
        let overlay = tenant.overlay.as_deref()?;
        (overlay.colour(cluster) == Some(colour)).then_some(tenant.id.as_str())
    })
}
