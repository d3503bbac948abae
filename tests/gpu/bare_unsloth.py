"""The bare work: Unsloth, PEFT and TRL as in Unsloth's notebook for gpt-oss-20b, nothing of effortbench. Prints one JSON line.

Its median is over all steps but the first, as that of the phase `steady` in effortbench's records.
"""

import argparse
import json
import random
import statistics
import tempfile
import time

# unsloth patches the others, so it must come first: imported last it trained with 0.3 GiB less and other code
# isort: off
from unsloth import FastLanguageModel
from unsloth.chat_templates import train_on_responses_only
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
# isort: on


class Clock(TrainerCallback):
    def __init__(self):
        self.seconds, self.losses = [], []

    def on_step_begin(self, *_, **__):
        torch.cuda.synchronize()
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__):
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)

    def on_log(self, *_, logs=None, **__):
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--held-out", type=int, default=32)
    asked = parser.parse_args()
    model, tokenizer = FastLanguageModel.from_pretrained(
        asked.model, max_seq_length=asked.max_length, dtype=torch.bfloat16, load_in_4bit=True, local_files_only=True
    )
    model = FastLanguageModel.get_peft_model(
        model, r=asked.rank, lora_alpha=16, lora_dropout=0, bias="none", random_state=3407, use_gradient_checkpointing="unsloth",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )  # fmt: skip
    with open(asked.rows, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = random.Random(3407).sample(rows, len(rows))  # effortbench's order: memory depends on how a row's tokens meet the experts
    talks = [
        [
            {"role": "system", "content": row.get("developer") or ""},
            {"role": "user", "content": row["user"]},
            {"role": "assistant", "thinking": row["analysis"], "content": row["final"]},
        ]
        for row in rows
    ]
    texts = [tokenizer.apply_chat_template(talk, tokenize=False, reasoning_effort="medium") for talk in talks]
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": texts[asked.held_out :]}),
        callbacks=[clock],
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), dataset_text_field="text", max_length=asked.max_length, per_device_train_batch_size=1,
            gradient_accumulation_steps=asked.accumulation, max_steps=asked.steps, warmup_steps=5, learning_rate=2e-4, logging_steps=1,
            optim="adamw_8bit", weight_decay=0.01, lr_scheduler_type="linear", seed=3407, report_to="none", save_strategy="no",
            router_aux_loss_coef=0.0, bf16=True, packing=False, dataset_num_proc=1, disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer = train_on_responses_only(trainer, instruction_part="<|start|>user<|message|>", response_part="<|start|>assistant", num_proc=1)
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    print(
        json.dumps(
            {
                "rank": asked.rank,
                "first_step_s": round(clock.seconds[0], 2),
                "median_step_s": round(statistics.median(clock.seconds[1:]), 4),
                "peak_vram_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3),
                "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 3),
                "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "steps_s": [round(seconds, 4) for seconds in clock.seconds],
                "losses": [round(loss, 4) for loss in clock.losses],
            }
        )
    )


if __name__ == "__main__":
    main()
