import collections, os, traceback, time
import hypothesis
from hypothesis import strategies as st
from parity_tests.test_command_lines import *
from parity_tests.test_command_lines import _check, command_lines, place
def test_collect(place):
    seen=collections.Counter(); first={}
    spent=collections.Counter(); slow=[]
    @hypothesis.settings(max_examples=int(os.environ["N"]),deadline=None,database=None,phases=[hypothesis.Phase.generate],suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(command_lines())
    def once(d):
        b=time.process_time()
        try: _check(d)
        except BaseException as e:
            t=traceback.extract_tb(e.__traceback__)
            where=[f for f in t if "/flaxnets/" in f.filename]
            key=(type(e).__name__, str(e)[:60] if not where else "", f"{where[-1].filename[-30:]}:{where[-1].lineno}" if where else "")
            seen[key]+=1; first.setdefault(key,(d,str(e)[:300]))
        s=time.process_time()-b; spent[d[0] if d else ""]+=s
        if s>2: slow.append((round(s,1),d))
    once()
    with open("/tmp/collect.out","w") as f:
        for k,n in seen.most_common(): print(n,k,first[k],"\n",file=f)
        print(spent,file=f); print(slow[:20],file=f)
