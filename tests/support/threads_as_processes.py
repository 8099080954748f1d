"""Several processes of a run, for tests: threads that wait for each other where processes would."""

import threading

from nla_jax.errors import NLAError
from nla_jax.parallel import distributed


def in_processes(count: int, monkeypatch, function, stop_at: int = 0) -> list:
  """What the function gives or raises in each of `count` processes, threads that wait for each other.

  With `stop_at` all are asked to stop at so many calls of `preempted`.
  """
  me, barrier, given = threading.local(), threading.Barrier(count, timeout=60), [None] * count

  def gather(rows):
    given[me.index] = rows
    barrier.wait()
    every = list(given)
    barrier.wait()
    return every

  def preempted():
    me.asked += 1
    return me.asked == stop_at

  results = [None] * count

  def work(index):
    me.index, me.asked = index, 0
    try:
      results[index] = function()
    except (NLAError, distributed.PreemptedError) as error:
      results[index] = error

  with monkeypatch.context() as patch:
    patch.setattr(distributed, "process", lambda: (me.index, count))
    patch.setattr(distributed, "gather_rows", gather)
    patch.setattr(distributed, "wait", lambda what: barrier.wait())
    patch.setattr(distributed, "preempted", preempted)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  return results
