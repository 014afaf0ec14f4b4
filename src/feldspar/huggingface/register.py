"""Make `transformers` know our class, so that folders of it load without remote code."""

from feldspar.core.errors import missing_extra


def register_with_transformers() -> None:
    """Register FeldsparConfig and FeldsparForCausalLM with transformers' Auto classes.

    After this call, ``AutoModelForCausalLM.from_pretrained(folder)`` without ``trust_remote_code``
    uses the installed class and runs no code of the folder. ``save_pretrained`` writes the code
    into new folders, so that they load where feldspar is not installed. A second call changes
    nothing. Raises SetupError without transformers.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise missing_extra("transformers", "hf") from error
    from feldspar.huggingface.remote.configuration_feldspar import FeldsparConfig
    from feldspar.huggingface.remote.modeling_feldspar import FeldsparForCausalLM

    AutoConfig.register(FeldsparConfig.model_type, FeldsparConfig, exist_ok=True)
    AutoModelForCausalLM.register(FeldsparConfig, FeldsparForCausalLM, exist_ok=True)
    FeldsparConfig.register_for_auto_class()
    FeldsparForCausalLM.register_for_auto_class("AutoModelForCausalLM")
