//! Deployments against a cluster, every way that they can end; see `cluster/mod.rs` for which cluster.
#![allow(clippy::unwrap_used)]

mod actions;
#[path = "../api/mod.rs"]
mod api;
mod apply;
mod bake;
#[macro_use]
#[path = "../cluster/mod.rs"]
mod cluster;
mod first;
mod jobs;
mod kinds;
mod outcomes;
mod ownership;
mod prerequisites;
mod promotion;
#[path = "../release/mod.rs"]
mod release;
#[path = "../first/mod.rs"]
mod releases;
mod rollback;

use deploy_domain::{catalog::Verify, deployment::DeploymentRequest};

cluster_tests! {
    configure: |config| config.nodes = 2,
    tests: [
        apply::a_new_image_rolls_out,
        apply::a_check_that_passes_tells_the_answer,
        apply::a_neighbours_workload_in_the_same_folder_is_left_to_it,
        apply::the_same_again_changes_nothing,
        apply::an_older_epoch_never_overwrites_a_newer_one,
        apply::a_field_that_left_the_manifests_leaves_the_cluster,
        apply::a_crash_loop_fails_early_with_its_log,
        apply::an_image_that_is_not_there_fails_early,
        apply::a_failed_check_tells_the_last_answer,
        apply::a_deletion_while_watched_is_told,
        apply::somebody_elses_image_is_told,
        apply::manifests_with_another_image_are_refused,
        apply::what_the_api_server_refuses_is_told,
        apply::an_unknown_cluster_is_named,
        apply::cancel_stops_the_watch,
        kinds::a_stateful_set_rolls_out_pod_by_pod,
        kinds::a_partition_is_where_a_stateful_set_stops,
        kinds::a_daemon_set_rolls_out_on_every_node,
        kinds::a_stateful_set_that_crashes_fails_early,
        kinds::a_daemon_set_that_crashes_fails_early,
        kinds::a_deadline_of_our_own_where_kubernetes_has_none,
        kinds::a_stateful_set_that_is_stuck_is_rolled_back,
        kinds::a_stateful_set_with_a_pod_that_is_never_ready_is_rolled_back,
        ownership::what_kubectl_applied_leaves_with_the_manifests,
        ownership::what_kubectl_created_leaves_with_the_manifests,
        ownership::what_kubectl_applied_on_the_server_leaves_with_the_manifests,
        ownership::what_others_set_stays,
        prerequisites::a_definition_is_established_before_its_objects,
        prerequisites::a_namespace_comes_before_what_is_in_it,
        prerequisites::a_missing_namespace_is_made_where_the_catalog_says_so,
        prerequisites::a_job_that_cannot_be_changed_points_to_jobs_before,
        prerequisites::a_patch_that_fits_no_schema_is_not_tried_again => LocalCluster,
        outcomes::a_quota_that_is_used_up_is_told,
        outcomes::pods_that_find_no_node_are_told,
        outcomes::paused_is_told_as_such,
        outcomes::scaled_to_zero_is_told,
        outcomes::an_image_name_that_is_none_fails_early,
        outcomes::kubernetes_own_deadline_is_told,
        outcomes::deleted_and_made_anew_by_someone_else_is_told,
        outcomes::a_later_turn_takes_its_place,
        actions::a_restart_makes_new_pods_of_the_same_image,
        actions::an_image_is_set_and_undone,
        actions::a_stateful_set_is_undone,
        actions::nothing_to_change_is_told,
        jobs::jobs_run_before_and_after,
        jobs::a_job_before_that_fails_changes_nothing_else,
        jobs::a_job_after_that_fails_is_told_with_its_log,
        jobs::a_job_that_takes_too_long_is_stopped,
        jobs::cancel_stops_the_job_and_its_pods,
        jobs::what_is_no_pod_is_refused,
        bake::a_version_that_keeps_running_has_passed,
        bake::a_version_that_is_replaced_while_it_bakes_fails,
        promotion::a_rollout_that_pauses_goes_on_when_somebody_promotes_it,
        promotion::a_rollout_that_pauses_goes_on_by_itself_where_the_catalog_says_so,
        promotion::an_abort_fails_it_and_names_who,
        rollback::a_rollback_that_fails_says_what_to_do,
        rollback::a_revert_in_git_is_deployed,
        rollback::without_git_the_version_before_is_put_back,
        rollback::the_live_state_is_judged,
        first::a_deployment_is_put_back,
        first::a_deployment_that_is_recreated_is_put_back,
        first::a_stateful_set_is_put_back,
        first::a_parallel_stateful_set_is_put_back,
        first::a_daemon_set_is_put_back,
        first::what_its_tag_no_longer_leads_to_is_pinned,
        first::what_did_not_exist_is_not_put_back,
    ],
    faults: [apply::an_api_server_that_restarts_costs_time_only],
}

/// Nothing fails early.
fn patient(request: DeploymentRequest) -> DeploymentRequest {
    DeploymentRequest {
        verify: Verify {
            fail_early: false,
            ..request.verify
        },
        ..request
    }
}
