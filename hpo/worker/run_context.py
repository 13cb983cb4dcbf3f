"""What a trial knows and keeps: its :class:`hpo.trainers.protocol.Run`, its folder, and which folders stay."""

from optuna.trial import TrialState

from hpo.errors import ExperimentError
from hpo.files.checkpoints import Checkpoint
from hpo.files.trial_folders import TrialFolders
from hpo.machine import gpu_indices
from hpo.search.seeds import seeds_of_trial
from hpo.trainers.protocol import Run
from hpo.trainers.trial_log import LOG_NAME, whole_log
from hpo.worker.options import WorkerOptions
from hpo.worker.running_trial import RunningTrial
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache
from hpo.worker.uploads import Uploads


def make_run(trial: RunningTrial, runner: StudyRunner, options: WorkerOptions, checkpoint: Checkpoint | None) -> Run:
    """The run of a claimed trial; the first attempt at a configuration starts with an empty folder."""
    claim, study_file = trial.claim, runner.study_file
    folders = folders_of(runner, options)
    if trial.is_new:
        folders.clear(claim.lineage)
    return Run(
        device=options.device,
        devices=trial_devices(options.device, study_file.gpus_per_trial),
        seed=trial.seed,
        seeds=seeds_of_trial(trial.seed, study_file.num_seeds),
        start_epoch=checkpoint.epoch if checkpoint else 0,
        checkpoint=checkpoint.state if checkpoint else None,
        data_dir=options.data_dir,
        download=options.download,
        study=runner.handle.name,
        experiment=study_file.name,
        trial=claim.number,
        lineage=claim.lineage,
        attempt=claim.attempt,
        trial_folder=folders.of(claim.lineage),
        metric=study_file.metric,
        second_metric=study_file.second_metric,
        optuna_trial=trial.optuna_trial,
        seed_libraries=study_file.seed_libraries,
        work_in_folder=study_file.work_in == "trial",
    )


def trial_devices(device: str, num_devices: int) -> tuple[str, ...]:
    """The devices of a trial, from the worker's first one on.

    Raises:
        ExperimentError: if this worker sees fewer GPUs.
    """
    if not device.startswith("cuda"):
        return (device,) * num_devices
    first = int(device.partition(":")[2] or 0)
    visible = len(gpu_indices())
    if num_devices > 1 and first + num_devices > visible:
        raise ExperimentError(
            f"gpus_per_trial = {num_devices}, but this worker sees {visible} GPU{'s' if visible > 1 else ''}: start it "
            f"with that many, such as CUDA_VISIBLE_DEVICES={','.join(map(str, range(num_devices)))} HPO_DEVICE=cuda:0"
        )
    return tuple(f"cuda:{first + index}" for index in range(num_devices))


def folders_of(runner: StudyRunner, options: WorkerOptions) -> TrialFolders:
    return TrialFolders(options.checkpoints, options.artifacts.parent, runner.handle.key)


def attach_log(run: Run) -> None:
    """Adds the trial's log, if it has one, to the files that are attached when the trial ends."""
    if run.trial_folder is None or (data := whole_log(run.trial_folder)) is None:
        return
    log = run.trial_folder / LOG_NAME
    if len(run.seeds) > 1:
        log = run.trial_folder / "seeds" / LOG_NAME
        try:
            log.parent.mkdir(exist_ok=True)
            log.write_bytes(data)
        except OSError:
            return  # a full disk costs the log
    run.artifacts.append(log)


def tidy_folders(
    cache: TrialCache, runner: StudyRunner, options: WorkerOptions, lineage: int, uploads: Uploads | None
) -> None:
    """Keeps the folder of the ``lineage`` that has ended, or not, as the study file's ``keep_folders`` says.

    With ``uploads`` what is kept is sent to the shared address, and what is no longer kept is removed there.
    """
    policy, study_id = runner.study_file.keep_folders, runner.handle.study_id
    folders = folders_of(runner, options)
    if policy == "all":
        if uploads is not None:
            uploads.keep(study_id, lineage, folders.of(lineage))
        return
    if uploads is None and not folders.path.is_dir():
        return
    cache.refresh(study_id, reports=False)
    ended: set[int] = set()
    best: tuple[float, int, int] | None = None
    sign = 1 if runner.study_file.direction == "maximize" else -1
    for trial in cache.get_all_trials(study_id, deepcopy=False):
        number = trial.user_attrs.get("lineage")
        if number is None or trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        ended.add(number)
        keeps = not any(violation > 0 for violation in trial.constraints.values())
        if trial.state is TrialState.COMPLETE and trial.values and keeps:
            rank = (sign * trial.values[0], -trial.number, number)
            best = rank if best is None else max(best, rank)
    kept = None if policy == "none" or best is None else best[2]
    if uploads is not None:
        if kept is not None:
            uploads.keep(study_id, kept, folders.of(kept))
        uploads.keep_only(study_id, kept, ended)
    folders.keep_best(kept, ended)
