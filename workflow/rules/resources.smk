"""What a job takes of the machine: its cores and GPUs where jobs run on this one.

What a job takes on another machine is said by the profile (set-threads, set-resources) and by nothing here: the machine
that sends a job and the one that it runs on would answer differently, and such a job is refused.
"""


def works_here():
    """Whether jobs run on this machine, and are not sent to others or were sent here by another."""
    return workflow.local_exec and not workflow.remote_exec


def all_cores(wildcards):
    """Every core of this machine."""
    return CORES if works_here() else 1


def half_the_cores(wildcards):
    """Half of them: two such jobs run beside each other."""
    return (CORES + 1) // 2 if works_here() else 1


def offered_gpus():
    """How many GPUs this run may use."""
    offered = workflow.global_resources.get("gpu") if GPUS else 0
    return getattr(offered, "value", offered) or 0


def training_cores(wildcards):
    """All cores for one network on the CPU; beside GPUs, each gets its share of cores to load images with."""
    offered = max(offered_gpus(), 1)
    share = CORES * min(CONFIG.runtime.gpus_per_member, offered) // offered
    return max(share, 1) if works_here() else 1


def trial_cores(wildcards):
    """What a worker of a search takes: the cores of one GPU, as it trains on one; without any, workers share them all."""
    share = CORES // (offered_gpus() or (CONFIG.tune.workers if CONFIG.tune else 1))
    return max(share, 1) if works_here() else 1


def one_gpu(wildcards):
    """A GPU, where this machine has any."""
    return 1 if GPUS and works_here() else 0


def gpus_of_a_member(wildcards):
    """The GPUs that train a member together, where this machine has any."""
    return CONFIG.runtime.gpus_per_member if GPUS and works_here() else 0
