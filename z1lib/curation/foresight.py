"""What notebook 03 would refuse is refused before anything is trained."""

from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import check_options, load_engine
from z1lib.profile import BadProfile, Profile
from z1lib.records import Problem


def check_decoding(profile: Profile, base: Path, tokenizer: PreTrainedTokenizerBase, test: list[Problem]) -> None:
    """Raises BadProfile, before anything is trained, for what 03 would refuse once it is.

    A prompt that does not fit the model's context, or the server's, with all that may be written behind it; an option
    that vLLM has not. Raises UnsupportedModel for a model that the transformers engine cannot decode.
    """
    asked = profile.inference
    check_options(asked.engine, asked.engine_options)
    reach = load_engine("transformers", str(base)).reach if asked.engine == "transformers" else None
    hints = [profile.hint_of(policy) for policy in asked.hints] + list(asked.other_hints.values())
    hint = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in hints)
    written = max(asked.max_tokens, asked.windows[-1] + hint + asked.max_answer_tokens)
    served = (asked.engine_options.get("serve_options") or asked.engine_options).get("max_model_len")
    own = AutoConfig.from_pretrained(base).get_text_config().max_position_embeddings
    context = min([own, *(limit for limit in (served, reach) if limit)])
    for problem in test:
        messages = conversation(problem.prompt, profile.system_prompt_of(problem.source))
        if (prompt := len(encode_prompt(tokenizer, messages))) + written > context:
            raise BadProfile(
                f"profile {profile.name}: key 'inference.max_tokens': {problem.id} has {prompt} prompt tokens, up to "
                f"{written} are written behind them, and the context is {context}: lower max_tokens, the windows or "
                "max_answer_tokens"
            )
