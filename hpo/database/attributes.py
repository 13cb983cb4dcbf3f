"""What the service keeps in Optuna's studies and trials: the names of the user attributes, each in one place.

Any Optuna client sees them. A *lineage* is one unit of a study's budget, numbered from 0: a trial and the retries of
it. The last attempt of a lineage is the one that counts; the earlier ones are FAIL and say why in ``REASON``.
"""

# Of a study.
EXPERIMENT = "hpo:experiment"  # str
SAMPLER = "hpo:sampler"  # str, the name in the study file's list
REPEAT = "hpo:repeat"  # int from 0
STUDY_FILE = "hpo:study_file"  # dict, hpo.studyfile.model.StudyFile.to_json()
RETRAINED = "hpo:retrained"  # dict, what came of training its best trial again: trial, seeds, validation, test
TRAINER_FIELDS = "hpo:trainer_fields"  # dict, config_schema of the trainer's configuration that it was made with
TRAINER_MODULES = "hpo:trainer_modules"  # str, --trainers of the launch; only ever shown, never imported from here
TRAINER_VERSIONS = "hpo:trainer_versions"  # list of dict, experiment.trainer_version: the code of each launch
KEY = "hpo:key"  # str, names the study's checkpoints; random, so that a study made again finds none of the old one

# Of a study, among Optuna's system attributes, which its dashboard does not show.
NOTE_DIGESTS = "hpo:note"  # list of str, SHA-256 of the notes that we wrote; another note is a person's

# Of a trial.
LINEAGE = "lineage"  # int from 0; for grid search the cell's index, below len(try_first) the index of a tried-first one
ATTEMPT = "attempt"  # int from 0
GIVEN = "hpo:given"  # dict, the configuration as it was given: fixed and sampled values, to be validated again
CONFIG = "config"  # dict, the validated configuration as it was dumped, for display; trials without GIVEN are older
SEED = "seed"  # int, the training seed; the same for every attempt of a lineage
START_EPOCH = "start_epoch"  # int, epochs that earlier attempts had trained when this one started
EPOCHS = "epochs"  # int, epochs that the lineage has trained, over all seeds; this attempt EPOCHS - START_EPOCH
SECONDS = "seconds"  # float, worker-seconds that this attempt took: in a pack, its share of the worker's time
WALL_SECONDS = "wall_seconds"  # float, seconds that this attempt was in its slot
SLOT_SECONDS = "slot_seconds"  # float, seconds of a slot: empty before this attempt, and with it
BUSY_SECONDS = "busy_seconds"  # float, seconds of these in which the trainer trained or evaluated
DRAW = "draw"  # int, how many draws of the lineage were refused before this configuration; absent: none
CRASHED = "hpo:crashed"  # True: it failed for good because it breaks its process or device, not by an error
REFUSED = "hpo:refused"  # True: a person enqueued it with values that cannot be used
INFEASIBLE = "hpo:infeasible"  # dict with lineage and draw: this configuration was refused and costs no budget
START = "hpo:start"  # dict, where its configuration comes from, one of the study file's ``starts`` without the values
DRAWN_BY = "hpo:drawn_by"  # str, which sampler auto drew the configuration with, and why
SEEN = "hpo:seen"  # dict, the results that a sampler that learns had seen when it drew, and the trials that ran then
SEED_VALUES = "seed_values"  # list of float or None, the value with each seed, of a trial that several seeds train
METRICS = "metrics"  # dict, all metrics of the epoch that gave the value
REASON = "reason"  # str, why it was pruned, failed or was given back
WORKER = "worker"  # str, host:pid
LOG = "log"  # str, host and path of the log that the worker of this attempt wrote
AUDITED = "audited"  # int, the epoch after which the pruner would have pruned a trial that was continued for the audit
TRAINED_ON = "trained_on"  # dict, what the last digits depend on: device, threads, slots, processor, torch's version
