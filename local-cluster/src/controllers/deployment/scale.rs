//! Scaling a Deployment without a rollout: all of its ReplicaSets, in proportion.

use super::{DESIRED, MAX, Pass};
use crate::object::annotation;

impl Pass<'_> {
    /// Whether only the number of replicas changed since the ReplicaSets were sized.
    pub(super) fn is_scaling(&self) -> bool {
        self.sets.iter().any(|set| {
            set.replicas() > 0
                && annotation(&set.object, DESIRED)
                    .parse::<i64>()
                    .is_ok_and(|desired| desired != self.replicas())
        })
    }

    pub(super) fn scale(&mut self) {
        let replicas = self.replicas();
        let active: Vec<usize> = (0..self.sets.len())
            .filter(|i| self.sets[*i].replicas() > 0)
            .collect();
        let single = match active.as_slice() {
            [] => self.new.or_else(|| self.sets.len().checked_sub(1)),
            [only] => Some(*only),
            _ => None,
        };
        if let Some(single) = single {
            self.resize(single, replicas);
            return;
        }
        if let Some(new) = self.new
            && self.is_saturated(new)
        {
            for index in self.old() {
                if self.sets[index].replicas() > 0 {
                    self.resize(index, 0);
                }
            }
            return;
        }
        if self.is_rolling() {
            self.scale_in_proportion(&active);
        }
    }

    pub(super) fn is_saturated(&self, index: usize) -> bool {
        let (set, replicas) = (&self.sets[index], self.replicas());
        annotation(&set.object, DESIRED) == replicas.to_string()
            && set.replicas() == replicas
            && set.status("availableReplicas") == replicas
    }

    /// Grows or shrinks every active ReplicaSet by its share, the larger and newer ones first.
    pub(super) fn scale_in_proportion(&mut self, active: &[usize]) {
        let total = self.total();
        let allowed = if self.replicas() > 0 {
            self.replicas() + self.fences().0
        } else {
            0
        };
        let to_add = allowed - total;
        let mut order = active.to_vec();
        order.sort_by(|a, b| {
            let (a, b) = (&self.sets[*a], &self.sets[*b]);
            let newer = if to_add > 0 {
                b.created().cmp(&a.created())
            } else {
                a.created().cmp(&b.created())
            };
            b.replicas().cmp(&a.replicas()).then(newer)
        });
        let mut added = 0;
        let mut sizes: Vec<(usize, i64)> = Vec::new();
        for index in order {
            let set = &self.sets[index];
            let size = set.replicas();
            let max = annotation(&set.object, MAX)
                .parse::<i64>()
                .ok()
                .filter(|m| *m > 0)
                .unwrap_or(total.max(1));
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "numbers of pods are small"
            )]
            let share = ((size * allowed) as f64 / max as f64).round() as i64 - size;
            let left = to_add - added;
            let share = if to_add > 0 {
                share.clamp(0, left)
            } else {
                share.clamp(left, 0)
            };
            added += share;
            sizes.push((index, size + share));
        }
        if let Some(first) = sizes.first_mut() {
            first.1 = (first.1 + to_add - added).max(0);
        }
        for (index, size) in sizes {
            self.resize(index, size);
        }
    }
}
