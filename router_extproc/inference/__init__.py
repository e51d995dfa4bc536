"""Classification on one worker thread: `base` the seam, `queue` the batch policy, `engine` the thread, `encoder` torch."""
