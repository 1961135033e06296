"""Cores and GPUs of a job, if jobs run on this machine.

For other machines the profile sets them (set-threads, set-resources) and nothing here does: values computed here could
differ between the machine that sends a job and the one that runs it, and Snakemake refuses such a job.
"""


def works_here():
    """Whether jobs run on this machine; false if they are sent to other machines, or were sent here by another one."""
    return workflow.local_exec and not workflow.remote_exec


def all_cores(wildcards):
    """All cores of this machine."""
    return CORES if works_here() else 1


def half_the_cores(wildcards):
    """Half of the cores, so that two such jobs run at the same time."""
    return (CORES + 1) // 2 if works_here() else 1


def offered_gpus():
    """Number of GPUs that this run may use."""
    offered = workflow.global_resources.get("gpu") if GPUS else 0
    return getattr(offered, "value", offered) or 0


def training_cores(wildcards):
    """All cores for a network on the CPU, or as the user says; with GPUs, its share of the cores to load images."""
    offered = max(offered_gpus(), 1)
    if not offered_gpus() and CONFIG.runtime.member_threads:
        return min(CONFIG.runtime.member_threads, CORES) if works_here() else 1
    share = CORES * min(CONFIG.runtime.gpus_per_member, offered) // offered
    return max(share, 1) if works_here() else 1


def cores_of_a_training(wildcards):
    """Cores that a training gets in this run, whatever sets them: --set-threads train=N comes first."""
    own = workflow.resource_settings.overwrite_threads.get("train")
    cores = getattr(own, "value", own)
    return cores if isinstance(cores, int) else training_cores(wildcards)


def trainings_at_once(wildcards):
    """Number of members that this run trains side by side."""
    if one_gpu(wildcards) and offered_gpus():
        return max(offered_gpus() // CONFIG.runtime.gpus_per_member, 1)
    return max(CORES // max(cores_of_a_training(wildcards), 1), 1)


def trial_cores(wildcards):
    """Cores of a search worker: the share of one GPU, as it trains on one; without GPUs, workers share all cores."""
    share = CORES // (offered_gpus() or (CONFIG.tune.workers if CONFIG.tune else 1))
    return max(share, 1) if works_here() else 1


def one_gpu(wildcards):
    """One GPU, or a place on a shared one, if this machine has any; else none."""
    return 1 if GPUS and works_here() else 0


def gpus_of_a_member(wildcards):
    """The GPUs that train one member together; none if this machine has no GPU."""
    return CONFIG.runtime.gpus_per_member if GPUS and works_here() else 0
